"""A hook of MkDocs: the command line's and the HTTP interface's pages, made from the code."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from fastapi import FastAPI
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.core import TyperCommand, TyperGroup

from segue.cli.app import app as commands
from segue.serving import routes

COMMANDS, OPERATIONS = "<!-- commands -->", "<!-- operations -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages with the picture that the results show."""
    picture = Path("benchmarks/time_to_quality.svg").resolve()
    files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the commands, or the operations, in the place of its marker."""
    if COMMANDS in markdown:
        return markdown.replace(COMMANDS, "\n".join(command_lines()))
    if OPERATIONS in markdown:
        return markdown.replace(OPERATIONS, "\n".join(operation_lines()))
    return markdown


def command_lines() -> Iterator[str]:
    """A section for each command: its help, arguments and options."""
    group = typer.main.get_command(commands)
    yield from _command(group, "segue")


def _command(command: Any, name: str) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"\n## {name}\n\n{command.help or ''}\n"
    rows = list(_parameters(command, context))
    if rows:
        yield "| argument or option | what it is |\n| --- | --- |"
        yield from rows
    if isinstance(command, TyperGroup):
        for child in command.list_commands(context):
            yield from _command(command.get_command(context, child), f"{name} {child}")


def _parameters(command: TyperCommand, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            name, text = record
            yield f"| `{name}` | {text.replace('|', chr(92) + '|')} |"


def operation_lines() -> Iterator[str]:
    """A section for each operation: what it does, what it takes and what it answers."""
    app = FastAPI()
    app.include_router(routes.router)
    document = app.openapi()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"\n## {method.upper()} {path}\n\n{operation.get('description', '')}\n"
            yield from _query(operation.get("parameters", []))
            body = operation.get("requestBody", {}).get("content", {})
            yield from _fields("Body", _schema(body, schemas))
            answer = operation["responses"].get("200", {}).get("content", {})
            yield from _fields("Answer", _schema(answer, schemas))


def _query(parameters: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if parameters:
        yield "\n| parameter | in | what it is |\n| --- | --- | --- |"
    for each in parameters:
        yield f"| `{each['name']}` | {each['in']} | {_what(each['schema'])} |"


def _schema(content: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a JSON body, found by its reference; empty where there is none."""
    schema = content.get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = schemas.get(name, schema)
    return found


def _fields(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if not schema.get("properties"):
        return
    yield f"\n**{title}**\n\n| field | what it is |\n| --- | --- |"
    for name, field in schema["properties"].items():
        needed = ", required" if name in schema.get("required", []) else ""
        yield f"| `{name}` | {_what(field)}{needed} |"


def _what(schema: Mapping[str, Any]) -> str:
    """A field's type, limits, default and description, in a line."""
    types = _type(schema)
    default = f", by default `{schema['default']}`" if schema.get("default") is not None else ""
    description = f": {schema['description']}" if "description" in schema else ""
    return f"{types}{default}{description}".replace("|", "\\|").replace("\n", " ")


def _type(schema: Mapping[str, Any]) -> str:
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(each) for each in choices))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    name = str(schema.get("type", "anything"))
    limits = [
        f"{word} {schema[key]:,.0f}"
        for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "of length up to"))
        if key in schema and abs(schema[key]) < 2**53
    ]
    if name == "array":
        return f"a list of {_type(schema.get('items', {}))}"
    return " ".join([name, *limits])
