"""Makes a completion queue overrun and waits for the driver to say so.

usage: rdma-cq-overrun.py DEVICE [asked]   (asked: somebody else makes it fail, after the line `ready` with its number of entries)

Prints `completion queue error` once the asynchronous event of just that kind has come.
"""
import os
import sys

from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import *  # noqa: F403
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR

ENTRIES = 15
RECEIVES = 64


def overrun(context, completions):
    """More receives than the queue has room for; a queue pair in error completes them all at once, as flushed."""
    pd = PD(context)
    region = MR(pd, 64, IBV_ACCESS_LOCAL_WRITE)
    init = QPInitAttr(qp_type=IBV_QPT_RC, scq=CQ(context, 1), rcq=completions, cap=QPCap(1, RECEIVES, 1, 1))
    qp = QP(pd, init)
    qp.to_init(QPAttr(port_num=1))
    for _ in range(RECEIVES):
        qp.post_recv(RecvWR(num_sge=1, sg=[SGE(region.buf, 64, region.lkey)]))
    failed = QPAttr()
    failed.qp_state = IBV_QPS_ERR
    qp.modify(failed, IBV_QP_STATE)
    return pd, region, qp


def main(device, how=""):
    context = Context(name=device)
    completions = CQ(context, ENTRIES)
    if how == "asked":
        print("ready", ENTRIES + 1, flush=True)
        kept = None
    else:
        kept = overrun(context, completions)
    event = context.get_async_event()
    found = event.event_type == IBV_EVENT_CQ_ERR
    print("completion queue error" if found else f"event {event.event_type}", flush=True)
    del kept
    # Without destructors: pyverbs 56 crashes when it frees objects in the order Python chooses.
    os._exit(0 if found else 1)


main(*sys.argv[1:])
