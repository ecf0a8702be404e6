"""Give each operation each of its tensors on another device; print what comes of it.

Run by test_bad_devices.py in a process of its own: bad_devices.py DEVICE OTHER. A kernel that is
handed memory of another device ends the process, or leaves a GPU that answers no more.
"""

import sys

import torch
from cases import smallest

device, other = map(torch.device, sys.argv[1:])
for case in smallest(torch.float32):
    wanted = case.run(case.on(device))
    for name in case.inputs:
        inputs = case.on(device)
        inputs[name] = inputs[name].to(other)
        try:
            found = case.run(inputs)
            same = all(torch.equal(found[key].to(device), wanted[key]) for key in wanted)
            outcome = "the right result" if same else "A WRONG RESULT"
        except (RuntimeError, ValueError, TypeError) as error:
            outcome = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(f"{case.name}, {name} on {other}: {outcome}", flush=True)
