"""`python -m raygenome`: the same as the `raygenome` command."""

from raygenome.cli import main

main()
