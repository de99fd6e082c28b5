"""`python -m tinygpt`, also under torchrun."""

from tinygpt.cli import main

main()
