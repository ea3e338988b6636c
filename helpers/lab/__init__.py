"""Experiments run from a shell; no notebook and no other module imports them."""
