"""What is to be run, and what became of it; nothing here computes.

A config becomes settings: `yaml_lines` reads, `schema` (of `section`, `sources`, `exhibit_options`) types, `load` and `checks`
refuse. Settings become runs (`grid`) and folders (`identity`, with the digest of `code` and `code_tree`). A folder holds a
`record`; `results` finds, `verify` checks, `adopt` renames and `prune` deletes them. Before a launch, `changes`, `explain`,
`plan` (with `prices`) and `pins` say what it would do; `rules` is what the workflow calls.
"""
