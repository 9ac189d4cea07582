"""Runs rdma-core's own tests, as Debian's python3-pyverbs brings them, and prints one line of JSON for every case.

usage: rdma-core-tests.py DEVICE SELECTION...   (SELECTION: a module such as test_pd, or module.Class, or module.Class.case)

Every line has `case`, `outcome` (passed, skipped, failed, crashed, hung), `reason` and `seconds`. Cases run in a child process: pyverbs 56
crashes when it frees objects in the order Python chooses, so the child leaves without destructors, and one that dies costs only the
case it was at. The exit status is 0 when every case was run, whatever came of it.
"""
import gc
import gzip
import importlib
import json
import os
import pathlib
import random
import select
import signal
import sys
import tempfile
import time
import types
import unittest

TESTS = pathlib.Path("/usr/share/doc/rdma-core/tests")
# The longest case takes seconds; one that says nothing for so long waits for something that will not come.
SILENCE_SECONDS = 300


def unpack_tests():
    """Debian compresses what lies among the documentation; returns a folder with all of it as Python can load it."""
    folder = pathlib.Path(tempfile.mkdtemp())
    for source in TESTS.iterdir():
        contents = source.read_bytes()
        folder.joinpath(source.name.removesuffix(".gz")).write_bytes(
            gzip.decompress(contents) if source.suffix == ".gz" else contents
        )
    return str(folder)


def repair_dmabuf_regions(module):
    """pyverbs 56 cannot use a DmaBuf: mr.pyx looks add_ref up as a Python attribute, and it is a C method. A subclass has one."""
    from pyverbs.dmabuf import DmaBuf
    from pyverbs.mr import DmaBufMR

    class Buffer(DmaBuf):
        def add_ref(self, region):
            pass

    class Region(DmaBufMR):
        def __init__(self, pd, length, access, dmabuf=None, offset=0, gpu=0, gtt=0):
            super().__init__(pd, length, access, Buffer(length + offset, gpu, gtt) if dmabuf is None else dmabuf, offset)

    module.DmaBufMR = Region


def flatten(suite):
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from flatten(entry)
        else:
            yield entry


def load(selection):
    """Cases of a selection, by name; importing a module does not touch the device."""
    loader = unittest.TestLoader()
    module = importlib.import_module("tests." + selection.split(".")[0])
    if hasattr(module, "DmaBufMR"):
        repair_dmabuf_regions(module)
    suite = loader.loadTestsFromName("tests." + selection)
    if loader.errors:
        raise SystemExit("\n".join(map(str, loader.errors)))
    return {case.id().removeprefix("tests."): case for case in flatten(suite)}


class Reporter(unittest.TestResult):
    """Announces each case, then says what came of it."""

    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe

    def say(self, **line):
        os.write(self.pipe, (json.dumps(line) + "\n").encode())

    def startTest(self, test):
        super().startTest(test)
        self.outcome = ("passed", "")
        self.started = time.monotonic()
        self.say(starts=test.id().removeprefix("tests."))

    def stopTest(self, test):
        super().stopTest(test)
        outcome, reason = self.outcome
        seconds = round(time.monotonic() - self.started, 3)
        self.say(case=test.id().removeprefix("tests."), outcome=outcome, reason=reason, seconds=seconds)

    def addSkip(self, test, reason):
        self.outcome = ("skipped", reason)

    def addFailure(self, test, error):
        self.outcome = ("failed", self._exc_info_to_string(error, test))

    addError = addFailure

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addFailure(test, error)


def run_child(cases):
    """Forks a process that runs the cases in order; returns its end of a pipe and its id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return reading, child
    os.close(reading)
    os.setsid()
    gc.freeze()
    reporter = Reporter(writing)
    for case in cases:
        # Tests draw flags and lengths; what is skipped for them should not change from run to run.
        random.seed(case.id())
        case.run(reporter)
    os._exit(0)


def follow(reading, child):
    """Yields the child's lines; the last one of a child that died or fell silent says so."""
    data = b""
    current = None
    end = "hung"
    while select.select([reading], [], [], SILENCE_SECONDS)[0]:
        received = os.read(reading, 65536)
        if not received:
            end = "crashed"
            break
        data += received
        *lines, data = data.split(b"\n")
        for line in map(json.loads, lines):
            current = line.get("starts")
            if current is None:
                yield line
    if end == "hung":
        os.killpg(child, signal.SIGKILL)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    if current is not None:
        yield {"case": current, "outcome": end, "reason": f"the process ended with wait status {status:#x}"}


def main(device, selections):
    folder = unpack_tests()
    sys.path[0] = folder
    # The package's own __init__ would load every module there is, which takes long on an emulated processor.
    package = sys.modules["tests"] = types.ModuleType("tests")
    package.__path__ = [folder]
    sys.argv[1:] = ["--dev", device]
    from args_parser import parser

    parser.parse_args()
    left = {}
    for selection in selections:
        left.update(load(selection))
    while left:
        count = len(left)
        for line in follow(*run_child(left.values())):
            del left[line["case"]]
            print(json.dumps(line), flush=True)
        if len(left) == count:
            raise SystemExit(f"no case was run of {', '.join(left)}")


main(sys.argv[1], sys.argv[2:])
