"""Memory on real video: similarity of a returning scene to the scene that it recalls and to the scene just left, from features only.

In the embedded world the truth is known. For a real video there is only this estimate; `echo-harness audit memory` measures its
correlation with the truth in the embedded world.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.measures.formulas import pair_consistency

SETTLE_S: Final = 2.25
"""Seconds of transition at the beginning of a scene; they are left out if the scene is at least twice as long."""
LEAK_S: Final = 4.5
"""Seconds after a return over which leakage is averaged."""
ITSELF: Final = 0.1
"""Least similarity of the halves of a scene; a scene that changes more is not used for comparison."""


def similarity(shown: NDArray[Any], scene: NDArray[Any]) -> float | None:
    """Similarity of frames to a scene, relative to the scene's similarity to itself.

        similarity = s(shown, scene) / s(scene', scene'')                                                                    (1)

    s is the mean cosine over all pairs of frames, scene' and scene'' are the scene's two halves. Unit features [T, D] and [U, D]; None
    for a scene of one frame, and one whose halves are not similar.
    """
    half = len(scene) // 2
    own = pair_consistency(scene[:half], scene[half:]) if half else 0.0
    return pair_consistency(shown, scene) / own if own >= ITSELF else None


class Returned(NamedTuple):
    """Means over the returns of a video: eq. (2) and eq. (3)."""

    memory_fidelity: float
    memory_leakage: float


def returns(features: NDArray[Any], spans: Sequence[tuple[int, int]], pairs: Iterable[tuple[int, int]], fps: float) -> Returned | None:
    """Memory fidelity and memory leakage of a video; None if no return can be measured.

        fidelity = similarity(return, recalled) - similarity(left, recalled)                                                   (2)
        leakage  = similarity(the return's first 4.5 s, left)                                                                (3)

    A video that stays in the scene just left has 0 and 1, since only content that this scene did not show counts as recalled. A third place
    has a fidelity of about 0, and a perfect return has 1 minus the similarity of the two places; both have that similarity as leakage.

    Args:
        features: unit features of all frames [T, D].
        spans: frames [start, end) of each scene.
        pairs: pairs of scenes from `eval.protocol.pairs_of`; a scene that recalls the one just left is skipped.
        fps: frames per second.
    """

    def settled(scene: int) -> NDArray[Any]:
        (start, end), skip = spans[scene], round(SETTLE_S * fps)
        return features[start + skip if end - start > 2 * skip else start : end]

    told = list[tuple[float, float]]()
    for late, early in pairs:
        start, first, left = spans[late][0], settled(early), settled(late - 1)
        begun = features[start : min(start + round(LEAK_S * fps), spans[late][1])]
        again, before, stays = similarity(settled(late), first), similarity(left, first), similarity(begun, left)
        if early != late - 1 and again is not None and before is not None and stays is not None:
            told.append((again - before, stays))
    return Returned(*np.mean(told, axis=0).tolist()) if told else None
