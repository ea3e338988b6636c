"""What may be called: tools declared with Pydantic (or imported as JSON Schema) and the catalogue they form."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, ValidationError

NO_TOOL = "no_tool"
INSTRUCTION = "Route the message to one of these tools:"
MAX_STRING = 10_000  # characters; no honest argument is longer, and what reads it may not stop by itself

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SHORT_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}


class Tool(BaseModel):
    """Base class of every tool: the class name gives the tool's name, the docstring its description, the fields its arguments.

    Types are strict (`"5"` is no integer) and extra arguments are refused. `irreversible` is for the code that calls, which asks
    before a call that cannot be taken back; the model does not see it.

    >>> class SetTimer(Tool):
    ...     "Start a countdown."
    ...     minutes: int
    >>> SetTimer.tool_name()
    'set_timer'
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    irreversible: ClassVar[bool] = False

    @classmethod
    def tool_name(cls) -> str:
        """The class name in snake_case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()


class TrackOrder(Tool):
    """Get the status of an order."""

    order_id: str


class RequestRefund(Tool):
    """File a refund for an order."""

    irreversible: ClassVar[bool] = True  # money that is paid out does not come back by itself

    order_id: str
    reason: str


class Escalate(Tool):
    """Hand the conversation to a person."""

    reason: str


@dataclass(frozen=True)
class ToolSpec:
    """One catalogue entry: `parameters` is a JSON Schema of type object; `model` is there for tools declared in Python.

    `irreversible`: a call cannot be taken back, so it needs a yes first.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    model: type[Tool] | None = None
    irreversible: bool = False

    def signature(self) -> str:
        """The catalogue line, for example `track_order(order_id: str): Get the status of an order.`"""
        required = self.parameters.get("required", [])
        arguments = ", ".join(
            f"{name}{'' if name in required else '?'}: {_short_type(schema)}" for name, schema in self.parameters["properties"].items()
        )
        return f"{self.name}({arguments}): {self.description}"

    def problem_with(self, arguments: Any) -> str | None:
        """What is wrong with `arguments` for this tool, in one line, or None when they are legal."""
        try:
            error = next(iter(Draft202012Validator(self.parameters).iter_errors(arguments)), None)
        except ArithmeticError:  # a number too large to divide by `multipleOf`
            return "arguments: a number is too large to check"
        if error is not None:
            where = "".join(f"[{part!r}]" for part in error.absolute_path)
            return f"arguments{where}: {error.message[:200]}"
        if self.model is not None:  # what JSON Schema cannot say: strict types and the tool's own validators
            try:
                self.model.model_validate_json(json.dumps(arguments))
            except ValidationError as failed:
                first = failed.errors(include_url=False, include_input=False)[0]
                return f"arguments{list(first['loc'])}: {first['msg']}"
        return None


class Toolset:
    """A catalogue of tools, in the order given.

    Raises ValueError on an empty catalogue, a name used twice, the reserved name `no_tool`, a name that is no
    identifier, and (for imported tools) a schema that is not valid JSON Schema of type object.
    """

    def __init__(self, *tools: type[Tool]):
        for tool in tools:
            if not (isinstance(tool, type) and issubclass(tool, Tool)):
                raise ValueError(f"Toolset takes subclasses of helpers.tools.Tool, got {tool!r}")
            if not (tool.__doc__ or "").strip():
                raise ValueError(f"tool {tool.__name__} has no docstring: the model reads it as the tool's description")
        self._fill(ToolSpec(t.tool_name(), " ".join(t.__doc__.split()), _plain(t.model_json_schema()), t, t.irreversible) for t in tools)

    @classmethod
    def from_openai(cls, tools: Iterable[Mapping[str, Any]]) -> Self:
        """A catalogue from OpenAI's form: `{"type": "function", "function": {"name", "description", "parameters"}}`.

        The form has no word for a call that cannot be taken back: none of its tools is `irreversible`.
        """
        return cls._from_dicts([t.get("function") if isinstance(t, Mapping) else t for t in tools], "parameters", "OpenAI tool")

    @classmethod
    def from_mcp(cls, tools: Iterable[Mapping[str, Any]]) -> Self:
        """A catalogue from the Model Context Protocol's form: `{"name", "description", "inputSchema"}`.

        A tool is `irreversible` when its `annotations.destructiveHint` is true (`ToolAnnotations` in the specification's schema,
        revision 2025-06-18). The specification presumes true where the hint is missing, and calls every hint of a server that is
        not trusted untrusted; here a missing hint sets nothing: read the list before you let anything call from it.
        """
        return cls._from_dicts(list(tools), "inputSchema", "MCP tool")

    @classmethod
    def _from_dicts(cls, tools: list[Mapping[str, Any]], schema_key: str, form: str) -> Self:
        specs = []
        for index, tool in enumerate(tools):
            if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
                got = f"the keys {sorted(tool)}" if isinstance(tool, Mapping) else f"{tool!r:.80}"
                raise ValueError(f"{form} {index} has no name; got {got}")
            schema = tool.get(schema_key)
            schema = {"type": "object"} if schema is None else schema  # a tool without arguments may leave it out
            if not isinstance(schema, Mapping):
                raise ValueError(f"{form} {tool['name']!r}: {schema_key} must be a JSON Schema object, got {schema!r:.80}")
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as error:
                raise ValueError(f"{form} {tool['name']!r}: {schema_key} is not valid JSON Schema: {error.message}") from None
            if schema.get("type") != "object":
                raise ValueError(f"{form} {tool['name']!r}: {schema_key} must have type object, got {schema.get('type')!r}")
            hints = tool.get("annotations") if form == "MCP tool" else None
            irreversible = isinstance(hints, Mapping) and hints.get("destructiveHint") is True
            description = " ".join(str(tool.get("description", "")).split())
            specs.append(ToolSpec(tool["name"], description, _plain(schema), irreversible=irreversible))
        return cls.from_specs(specs)

    @classmethod
    def from_specs(cls, specs: Iterable[ToolSpec]) -> Self:
        """A catalogue from another's entries: fewer of them, in another order, or several catalogues joined."""
        toolset = cls.__new__(cls)
        toolset._fill(specs)
        return toolset

    def _fill(self, specs: Iterable[ToolSpec]) -> None:
        self._specs: dict[str, ToolSpec] = {}
        for spec in specs:
            if spec.name == NO_TOOL:
                raise ValueError(f"{NO_TOOL!r} is reserved for the no-tool path; rename the tool")
            if not _NAME.fullmatch(spec.name):
                raise ValueError(f"tool name {spec.name!r} is not an identifier of at most 64 characters")
            if spec.name in self._specs:
                raise ValueError(f"two tools are called {spec.name!r}")
            self._specs[spec.name] = spec
        if not self._specs:
            raise ValueError("a catalogue needs at least one tool")

    @property
    def names(self) -> list[str]:
        """Tool names in catalogue order, without `no_tool`."""
        return list(self._specs)

    def __getitem__(self, name: str) -> ToolSpec:
        return self._specs[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._specs

    def __len__(self) -> int:
        return len(self._specs)

    def __repr__(self) -> str:
        return f"Toolset({', '.join(self.names)})"

    def system_prompt(self, instruction: str = INSTRUCTION) -> str:
        """The system message: instruction, one line per tool, and the two legal forms of an answer."""
        lines = [instruction, *(f"- {spec.signature()}" for spec in self._specs.values())]
        lines.append('Answer with one JSON object: {"tool":"...","arguments":{...}}')
        lines.append(f'If no tool fits: {{"tool":"{NO_TOOL}","reason":"..."}}')
        return "\n".join(lines)

    def openai_tools(self) -> list[dict[str, Any]]:
        """The catalogue in OpenAI's form; `Toolset.from_openai` reads it back."""
        return [
            {"type": "function", "function": {"name": s.name, "description": s.description, "parameters": s.parameters}}
            for s in self._specs.values()
        ]

    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of every legal output: one branch per tool and one for `no_tool`."""
        calls = [_closed_object(tool={"const": s.name}, arguments=s.parameters) for s in self._specs.values()]
        refusal = _closed_object(tool={"const": NO_TOOL}, reason=_NON_BLANK)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": [*calls, refusal]}


def support_desk() -> Toolset:
    """The lesson's catalogue: track_order, request_refund, escalate."""
    return Toolset(TrackOrder, RequestRefund, Escalate)


_NON_BLANK = {"type": "string", "minLength": 1, "maxLength": MAX_STRING, "pattern": r"\S"}


def _closed_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as the catalogue needs it: references inlined, titles gone, extra arguments and blank required strings refused."""
    plain = _inline(schema, schema.get("$defs", {}))
    plain.pop("description", None)  # Pydantic repeats the docstring here; the tool has it already
    plain.setdefault("properties", {})
    plain.setdefault("additionalProperties", False)
    for name in plain.get("required", []):
        field = plain["properties"].get(name, {})
        if isinstance(field, dict) and field.get("type") == "string" and not field.keys() & {"enum", "const", "format"}:
            plain["properties"][name] = _NON_BLANK | field
    return plain


_DATA_KEYWORDS = {"const", "enum", "default", "examples"}  # their values are data: what looks like a schema in them is none


def _inline(node: Any, definitions: Mapping[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """A schema node without `$ref`, `$defs` and titles. Raises ValueError on a reference that is recursive or leads elsewhere."""
    if isinstance(node, list):
        return [_inline(item, definitions, seen) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "$ref" in node:
        name = str(node["$ref"]).removeprefix("#/$defs/")
        if name not in definitions or name in seen:
            raise ValueError(f"cannot use the reference {node['$ref']!r}: it is recursive or points outside the tool's own $defs")
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _inline({**definitions[name], **rest}, definitions, (*seen, name))
    result = {}
    for key, value in node.items():
        if key in _DATA_KEYWORDS:
            result[key] = value
        elif key in ("properties", "patternProperties", "dependentSchemas"):  # names here may be anything, "title" too
            result[key] = {name: _inline(field, definitions, seen) for name, field in value.items()}
        elif key not in ("$defs", "title"):
            result[key] = _inline(value, definitions, seen)
    return result


def _short_type(schema: Mapping[str, Any] | bool) -> str:
    if not isinstance(schema, Mapping):
        return "any"
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "|".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return "|".join(_short_type(option) for option in schema["anyOf"] if option != {"type": "null"})
    kind = schema.get("type", "any")
    return "|".join(_SHORT_TYPES.get(k, k) for k in kind) if isinstance(kind, list) else _SHORT_TYPES.get(kind, kind)
