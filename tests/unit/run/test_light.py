"""The process that runs the flow waits for the stages, which train elsewhere: it imports nothing that trains."""

import pkgutil
import subprocess
import sys

import flows.run


def test_no_room_of_the_flow_imports_what_trains() -> None:
    rooms = [room.name for room in pkgutil.walk_packages(flows.run.__path__, "flows.run.")]
    assert len(rooms) > 10
    program = f"import {', '.join(rooms)}, sys; sys.exit(' '.join({{'torch', 'transformers'}} & {{*sys.modules}}) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
