"""What only a GPU can show: `pytest tests/gpu` on a machine with one; all of it is skipped where there is none.

Not run on a GPU yet. With DECONATTN_TEST_DEVICE=cpu the same functions run on a CPU: that shows the tests themselves to be right.
"""
