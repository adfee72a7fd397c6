"""The suite that every file in `deconattn/mixers` is held to; `pytest tests/mixers -k <variant>` runs it for one.

What it runs on: each registered variant × {uniform, even} × {one key head a query head, two query heads a key head}.
At every length of 1, 2, 31, 33 and 257: rows of the map, map = forward = steps, logits and gradients of whole models,
prefill + decode, perturbed futures. At one or two of them: what does not depend on the length or costs a generation, and
there layouts take turns with heads (`PAIRS`). `standard` is the same model in any layout and stands once.
Layouts other than these two, head norms, biases and tied embeddings meet pairwise in `test_models.py`.

Costs are held to what PyTorch counts, to what autograd and states hold, and to the definition's products, each with heads of
16 and lengths up to 3,000.

All of it takes less than three minutes of one core. Differences are relative RMS, and the budgets have no warning mode: 1e-12 in
float64, 2e-6 in float32, 8e-3 in bf16; `test_precision.py` says of what. `test_faults.py` breaks the package on purpose, once
or more for each test here, and sees that test fail: each fault is an edit of one function's text.
"""
