"""Run commands or scripts one after another, in this process: a start-up costs seconds each.

Standard input is JSON: `[["ml-assets", "status"], ["python", "<source>"], …]`. The last line of the
output is a list with what each said if it failed. `test_docs.py` runs it in a project's folder.
"""

import json
import sys
import traceback

from typer.testing import CliRunner

from ml_assets.cli import app


def _command(arguments: list[str]) -> str | None:
    done = CliRunner().invoke(app, arguments)
    if done.exit_code == 0:
        return None
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    trace = [] if ended else traceback.format_exception(done.exception)
    return f"{done.output}{''.join(trace)}"


def _script(source: str) -> str | None:
    try:
        exec(compile(source, "<page>", "exec"), {"__name__": "__main__"})
    except Exception:
        return traceback.format_exc()
    return None


def main() -> None:
    """Run what standard input asks for."""
    asked = json.load(sys.stdin)
    told = [_script(rest[0]) if kind == "python" else _command(rest) for kind, *rest in asked]
    print(f"\n{json.dumps(told)}")


if __name__ == "__main__":
    main()
