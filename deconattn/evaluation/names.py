"""The paper's tasks of multiple choice, over which accuracies are averaged; imports nothing heavy."""

MULTIPLE_CHOICE = ("arc_easy", "boolq", "copa", "piqa", "sciq", "rte", "hellaswag")
