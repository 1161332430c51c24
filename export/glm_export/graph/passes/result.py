"""What a pass says of its run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PassResult:
    """How many places a pass rewrote, and why it left others.

    Attributes:
        name: the pass.
        rewritten: places rewritten.
        skipped: one sentence for each place that looked alike but did not match.
    """

    name: str
    rewritten: int
    skipped: tuple[str, ...] = ()
