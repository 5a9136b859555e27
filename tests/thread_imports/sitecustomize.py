"""Loaded by each Python process that has this folder in its PYTHONPATH: writes down which module was loaded in another
thread than the main one by this project's code.

Two threads that import at once may each see what the other has half loaded: scipy looks into `sys.modules["torch"]`,
which is there before it has a `Tensor`. So the project imports in main threads only."""

import os
import sys
import threading
import traceback

NOTES = os.environ.get("THREAD_IMPORT_NOTES")
ROOMS = tuple(f"{os.sep}{name}{os.sep}" for name in ("ray_jobs", "trainers", "ensemble"))


class Witness:
    """A finder that finds nothing, and is asked first whenever a module is really loaded."""

    def find_spec(self, name, path=None, target=None):
        """Notes a module that is about to be loaded, if it should not be."""
        thread = threading.current_thread()
        # Ray Train calls the train function of several workers in a thread, and the main thread of such a process only
        # answers its controller.
        if thread is threading.main_thread() or thread.name.startswith("TrainingThread"):
            return None
        ours = [frame for frame in traceback.extract_stack() if any(room in frame.filename for room in ROOMS)]
        if ours:
            where = f"{ours[-1].filename}:{ours[-1].lineno}"
            with open(NOTES, "a") as notes:
                notes.write(f"{name} in thread {thread.name!r}, by {where}\n")
        return None


if NOTES:
    sys.meta_path.insert(0, Witness())
