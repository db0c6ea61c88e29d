"""Device side of Echo-Forcing: running statistics of a scene, token selection, recall frames, fading weights.

Shapes: B batch, N tokens of a block, S tokens of a frame, H heads, D head_dim, C complex channels, T frames.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from echo.backbone.rope import integers, temporal_frequencies
from echo.cache.kinds import recall_of
from echo.cache.plan import Plan, Step
from echo.cache.policy import Memory
from echo.cache.store import FrameStore, Named
from echo.geometry import Geometry
from echo.memory import compression, decay, recall
from echo.memory.settings import (
    CentreFrames,
    Counterpart,
    Discrepancy,
    EchoSettings,
    Fusion,
    QueryCentre,
    RecentCentre,
    Reference,
)
from echo.routing import check_recall
from echo.scene import Transition


@dataclass
class LayerStatistics:
    """Sums over the clean queries of the running scene, and the calibration (eq. 2) once it is complete.

    place_sum: sums for each place, if recall frames are weighted by place. newest: mean clean queries of the recent frames' blocks.
    """

    query_sum_BHD: Tensor
    magnitude_sum_BHC: Tensor
    centre_BHC: Tensor
    magnitude_BHC: Tensor
    place_sum_BSHD: Tensor | None
    newest: deque[Tensor]


class EchoMemory(Memory):
    """State of one rollout. Counters are host integers that all layers share; only sums and weights are tensors."""

    def __init__(self, policy: EchoSettings, geometry: Geometry, store: FrameStore) -> None:
        self.policy, self.geometry, self.store = policy, geometry, store
        omega = temporal_frequencies(geometry.head_dim).to(store.device)
        self.omega_C, self.phase_C = omega, compression.offset_phase(omega, policy.offsets)
        batch, heads, size = store.batch, geometry.heads, geometry.head_dim
        by_place = policy.recall_frame.centre is QueryCentre.position
        self.layers = [
            LayerStatistics(
                torch.zeros(batch, heads, size, device=store.device),
                torch.zeros(batch, heads, size // 2, device=store.device),
                torch.zeros(batch, heads, size // 2, dtype=torch.complex64, device=store.device),
                torch.zeros(batch, heads, size // 2, device=store.device),
                torch.zeros(batch, geometry.tokens_per_frame, heads, size, device=store.device) if by_place else None,
                deque(maxlen=policy.recent_blocks(geometry)),
            )
            for _ in range(geometry.layers)
        ]
        self.neighbours_NS: Tensor | None = None
        if policy.looks_around:
            self.neighbours_NS = decay.neighbourhood(geometry.grid_height, geometry.grid_width).to(store.device)
        self.scene_frames = 0
        self.rates: list[Tensor | None] = [None] * geometry.layers
        self.fade: list[Tensor | None] = [None] * geometry.layers

    def switch(self, step: Step) -> None:
        """Fuse the ended scene's recall frame, then begin the new scene with empty statistics.

        Raises ValueError for a recall of no scene, or of one that has left the pool.
        """
        if step.start.transition is Transition.recall:
            check_recall(step.start.recalls, step.scene, self.policy.routing)
        if step.scene and self.policy.recall_frame.fusion is not Fusion.none:
            self._store_recall_frame(step)
        for statistics in self.layers:
            statistics.query_sum_BHD.zero_()
            statistics.magnitude_sum_BHC.zero_()
            statistics.newest.clear()
            if statistics.place_sum_BSHD is not None:
                statistics.place_sum_BSHD.zero_()
        self.scene_frames = 0
        old = len(self.policy.old_memory(step))
        weight = self.policy.fading(step.start.transition).weight if step.start.transition else 1.0
        tokens = old * self.geometry.tokens_per_frame
        for layer in range(self.geometry.layers):
            self.rates[layer] = None
            self.fade[layer] = torch.full((self.store.batch, tokens), weight, device=self.store.device) if old else None

    def _store_recall_frame(self, step: Step) -> None:
        ended = step.starts[-2]
        first = ended.block * self.geometry.frames_per_block
        frames = [first + f for f in self.policy.recall_frame.candidates(step.first_frame - first)]
        for layer in range(self.geometry.layers):
            k, v = self.store.frames(layer, frames)
            weights = self.candidate_weights(layer, k)
            base = self.policy.recall_frame.base_weight
            self.store.remember(recall_of(step.scene - 1), layer, Named(recall.fuse(k, weights, base), recall.fuse(v, weights, base)))

    def candidate_weights(self, layer: int, keys_BMSHD: Tensor) -> Tensor:
        """alpha of eq. (8) under the settings, [B, M, S], by the mean query of the scene so far."""
        weights = recall.recall_weights(keys_BMSHD, self._recall_centre(layer))
        return recall.crucial(weights) if self.policy.recall_frame.fusion is Fusion.crucial else weights

    def _recall_centre(self, layer: int) -> Tensor:
        """The mean clean query of eq. (8), [B, H, D], or [B, S, H, D] if each place has its own."""
        statistics, calibrated = self.layers[layer], self.policy.recall_frame.queries is CentreFrames.calibration
        if statistics.place_sum_BSHD is not None:
            return statistics.place_sum_BSHD / (min(self.scene_frames, self.policy.calibration_frames) if calibrated else self.scene_frames)
        if calibrated:
            return torch.view_as_real(statistics.centre_BHC).flatten(-2)
        return statistics.query_sum_BHD / (self.scene_frames * self.geometry.tokens_per_frame)

    def begin_block(self, step: Step, plan: Plan) -> None:
        """Compute the candidates' ages, which all layers share."""
        if plan.selection is not None:
            ages = [plan.first_frame - frame for frame in plan.selection.candidates if isinstance(frame, int)]
            self.ages_T = integers(ages, self.store.device)

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        """Eqs. (3) to (6); q are this block's first-pass queries."""
        assert plan.selection is not None
        frames = [source for source in plan.selection.candidates if isinstance(source, int)]
        statistics = self.layers[layer]
        k_BTSHD = self.store.k[layer].index_select(1, self.store.index(frames)).float()  # once for both scores
        score = compression.phase_score(k_BTSHD, statistics.centre_BHC, self.phase_C, self.omega_C, self.ages_T)
        if self.policy.amplitude:
            amplitude = compression.amplitude_score(k_BTSHD, statistics.centre_BHC, statistics.magnitude_BHC)
            if self.policy.drift_gate:
                amplitude = self.gate(layer, q)[:, None, None] * amplitude
            score = score + amplitude
        return compression.top_tokens(score.flatten(1), plan.selection.frames * self.geometry.tokens_per_frame)

    def gate(self, layer: int, q: Tensor) -> Tensor:
        """g of eq. (5) under the settings, [B]; q [B, N, H, D] are the block's first-pass queries."""
        statistics = self.layers[layer]
        clean = self.policy.recent_centre is RecentCentre.clean
        recent_BHD = torch.stack(tuple(statistics.newest)).mean(0) if clean else q.mean(1)
        return compression.drift_gate(recent_BHD, statistics.centre_BHC, self.policy.drift_gate_lambda)

    def weights(self, layer: int, plan: Plan) -> Tensor | None:
        return self.fade[layer] if plan.faded else None

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Add the block's clean queries to the scene's sums; freeze the calibration when its frames are complete."""
        statistics = self.layers[layer]
        statistics.query_sum_BHD += q.float().sum(1)
        if self.policy.recent_centre is RecentCentre.clean:
            statistics.newest.append(q.float().mean(1))
        seen = self.scene_frames + self.geometry.frames_per_block
        whole_scene = self.policy.recall_frame.queries is CentreFrames.scene
        if statistics.place_sum_BSHD is not None and (whole_scene or seen <= self.policy.calibration_frames):
            statistics.place_sum_BSHD += q.float().unflatten(1, (-1, self.geometry.tokens_per_frame)).sum(1)
        if seen <= self.policy.calibration_frames:
            statistics.magnitude_sum_BHC += compression.as_complex(q).abs().sum(1)
            tokens = seen * self.geometry.tokens_per_frame
            statistics.centre_BHC = compression.as_complex(statistics.query_sum_BHD) / tokens
            statistics.magnitude_BHC = statistics.magnitude_sum_BHC / tokens

    def end_block(self, step: Step, plan: Plan) -> None:
        """Fade the old memory by one block, at rates from the scene's first clean block."""
        self.scene_frames += self.geometry.frames_per_block
        if not plan.faded:
            return
        for layer in range(self.geometry.layers):
            if step.block_in_scene == 0:
                self.rates[layer] = self._rates(layer, step, plan)
            fade, rate = self.fade[layer], self.rates[layer]
            assert fade is not None and rate is not None
            self.fade[layer] = fade * rate

    def _rates(self, layer: int, step: Step, plan: Plan) -> Tensor:
        assert step.start.transition is not None
        fading = self.policy.fading(step.start.transition)
        tokens = plan.faded * self.geometry.tokens_per_frame
        if fading.fixed:
            return torch.full((self.store.batch, tokens), fading.rho_max, device=self.store.device)
        sources = [slot.source for slot in plan.context[: plan.faded]]
        whole = fading.discrepancy is Discrepancy.per_frame
        old_BTSHD = torch.stack([self.store.keys(layer, source) for source in (sources if whole else sources[:1])], dim=1)
        met = range(step.first_frame, step.first_frame + (self.geometry.frames_per_block if fading.reference is Reference.block else 1))
        new_BRSHD = torch.stack([self.store.keys(layer, frame) for frame in met], dim=1)
        difference = decay.discrepancy(old_BTSHD, new_BRSHD, self.neighbours_NS if fading.place is Counterpart.neighbourhood else None)
        delta_BN = decay.normalise(difference.flatten(1)).repeat(1, tokens // difference[0].numel())
        return decay.retention(delta_BN, fading.rho_min, fading.rho_max, fading.map)
