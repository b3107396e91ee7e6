"""The binding motifs of the synthetic genome, and when a site of a motif is intact or broken.

A site is *intact* if its score, the log2-likelihood of its bases under the motif, is at most
`SLACK_BITS` below the motif's best score. One wrong base at a firm position costs
log2(0.97 / 0.01) = 6.6 bits, which is more: such an SNV always breaks the site.
"""

from functools import cached_property

import numpy as np

from raygenome.genome.sequence import BASES

#: How many bits an intact site may score below the motif's best score.
SLACK_BITS = 5.0

_LETTERS = {**{base: base for base in BASES}, "R": "AG", "Y": "CT", "S": "CG", "W": "AT"}
_LETTERS |= {"K": "GT", "M": "AC"}


def _letter_frequencies(letter: str) -> list[float]:
    """Return the frequencies of A, C, G, T for one letter of a motif's pattern."""
    if letter == "n":
        return [0.25] * 4
    bases = _LETTERS[letter.upper()]
    if len(bases) == 2:
        return [0.48 if base in bases else 0.02 for base in BASES]
    high, low = (0.97, 0.01) if letter.isupper() else (0.70, 0.10)
    return [high if base == bases else low for base in BASES]


class Motif:
    """A transcription factor's binding motif, from a pattern of one letter per position.

    An upper-case base is firm (0.97, the others 0.01). A lower-case base is preferred (0.70, the
    others 0.10). R Y S W K M allow two bases (0.48 each, the others 0.02), and n allows all. The
    patterns are the textbook consensus of each factor, rounded to these letters. They are enough
    for a demo and do not replace a motif database.

    Attributes:
        name: the factor, usable as an SQL column name without quotes.
        frequencies: (length, 4) float64, columns A, C, G, T; each row sums to 1.
        firm: positions (int64, ascending) at which one wrong base breaks a site.
    """

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self.frequencies = np.array([_letter_frequencies(letter) for letter in pattern])
        self.firm = np.flatnonzero(self.frequencies.max(axis=1) > 0.9)

    def __len__(self) -> int:
        return len(self.frequencies)

    @cached_property
    def threshold(self) -> float:
        """The lowest score, in bits, of an intact site."""
        return float(np.log2(self.frequencies.max(axis=1)).sum()) - SLACK_BITS

    def score(self, codes: np.ndarray) -> np.ndarray:
        """Return the log2-likelihood of each site in `codes`, (..., length), without any N."""
        return np.log2(self.frequencies)[np.arange(len(self)), codes].sum(axis=-1)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the codes of one intact site on the motif's own strand."""
        cumulative = self.frequencies.cumsum(axis=1)[:, :3]
        while True:
            codes = (rng.random((len(self), 1)) > cumulative).sum(axis=1).astype(np.uint8)
            if self.score(codes) >= self.threshold:
                return codes

    def break_one(self, site: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a copy of an intact site with another base at one firm position."""
        broken = site.copy()
        where = rng.choice(self.firm)
        broken[where] = (site[where] + rng.integers(1, 4)) % 4
        return broken


#: The planted motifs, in the order of the demo model's targets. All carry at least 14 bits, so
#: that a few thousand random variants almost never make or break a site by chance.
MOTIFS = (
    Motif("CTCF", "YgRCCASYAGRKGGCRSYR"),
    Motif("REST", "tTCAGCACCatGGACAGcgCC"),
    Motif("GATA1_TAL1", "CTGnnnnnnnnWGATAAR"),
    Motif("NRF1", "YGCGCATGCGCR"),
    Motif("HNF1A", "RGTTAATnATTAACY"),
    Motif("TP53", "RRRCATGYYYRRRCATGYYY"),
)
