"""Small instances with optima that are known by hand or published."""

from __future__ import annotations

from fractions import Fraction

from eplb_gap.problem import Instance

README = [(90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86), (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27)]
FLASHLB = Instance((600, 560, 120, 120, 20, 10, 10, 10), 16, 8)
BY_HAND = [
    (Instance((10, 6), 4, 2), Fraction(8)),
    (Instance((10, 6), 4, 2, "forbidden"), Fraction(8)),
    (Instance((12, 1, 1), 4, 2), Fraction(7)),
    (Instance((12, 12, 1, 1), 4, 4), Fraction(12)),
    (Instance((9, 3), 4, 1), Fraction(12)),
    (Instance((9, 3, 1), 8, 1), Fraction(13)),
    (Instance((9, 3), 4, 4), Fraction(3)),
    (Instance((9, 5, 3), 6, 6), Fraction(3)),
    (Instance((0, 0, 0), 4, 2), Fraction(0)),
    (Instance((0, 0, 0), 4, 2, "forbidden"), Fraction(0)),
    (Instance((0, 0, 0, 0), 6, 3), Fraction(0)),
    (Instance((5,), 3, 3, "forbidden"), Fraction(5, 3)),
    (Instance((90, 132, 40, 61, 104, 165), 8, 4), Fraction(151)),
]
PUBLISHED = [
    (FLASHLB, Fraction(590, 3)),
    (Instance(README[0], 16, 8), Fraction(136)),
    (Instance(README[1], 16, 8), Fraction(172)),
]
"""FlashLB's example; both layers of DeepSeek's README example under the global policy."""
