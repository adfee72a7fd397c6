"""The environment that lm-evaluation-harness runs in: no network, and none of its chatter in a job's log."""

from __future__ import annotations

import logging
import os

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_up() -> None:
    """Set the environment; call it before lm_eval or datasets is imported."""
    os.environ.update(ENVIRONMENT)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
