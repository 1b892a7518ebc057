"""A JAX client that does what its standard input says, one JSON object a line, and answers each.

{"code": ...} is executed; what it leaves in `result` is the answer's "value" (as JSON), and an
exception its "error" and "type". Names stay from one command to the next.
"""

import json
import os
import sys
import traceback


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what programs print goes to the log
    names: dict[str, object] = {}
    for line in sys.stdin:
        names.pop("result", None)
        try:
            exec(compile(json.loads(line)["code"], "<command>", "exec"), names)
            answer = {"value": names.get("result")}
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": str(error), "type": type(error).__name__}
            # A traceback would hold the arrays of the failed command.
            error.__traceback__ = None
            del error
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
