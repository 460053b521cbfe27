#!/bin/sh
# The Slurm tests on the Slurm of Debian sid (26.05 when this was written): slurm26.sh [TREE] [pytest options].
# Flat licences and the power tree of hierarchical resources; see slurm_tree.sh.
tree=${1:-out/sid}
[ $# -eq 0 ] || shift
exec "$(dirname "$0")/slurm_tree.sh" sid "$tree" "$@"
