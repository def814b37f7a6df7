"""Recipe section `guards` of each training stage: when a step is bad, what is done, and when to call for help."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from qwen_core.config.base import Count, Ratio, Section


class Guards(Section):
    """When a training step is bad, what is done about it, and when a person is told."""

    neutral: ClassVar[frozenset[str]] = frozenset(
        {
            *("max_epochs", "heartbeat_seconds", "stall_factor", "stall_seconds", "abort_seconds"),
            *("collective_timeout_seconds", "memory_limit_ratio", "throughput_drop_ratio", "alert_every_seconds"),
            *("profile_steps", "peak_flops"),
        }
    )

    spike_action: Literal["skip", "warn"] = Field(
        "skip", description="skip drops a batch whose loss is a spike; warn trains on it and only tells."
    )
    spike_score: float = Field(
        6.0, gt=0, description="A loss so many robust deviations above the newest ones, in logarithms, is a spike."
    )
    spike_rise_ratio: float = Field(
        0.1, ge=0, description="A spike also stands at least this share of the newest losses above them."
    )
    window_steps: int = Field(128, ge=8, description="Good steps whose scatter is measured.")
    grace_steps: int = Field(100, ge=0, description="First steps of a run, in which nothing is called a spike.")
    grad_norm_score: float = Field(
        6.0,
        gt=0,
        description="A gradient norm so many robust deviations above the newest ones, in logarithms, is an outlier.",
    )
    grad_norm_ratio: float = Field(3.0, ge=1, description="An outlier is also so many times the newest ones.")
    min_loss_scale: float = Field(16.0, gt=0, description="An fp16 overflow at this loss scale or below is a bad step.")
    max_bad_steps: Count = Field(5, description="So many bad steps in a row, and training goes back to a checkpoint.")
    rollback_distance_steps: int = Field(
        100, ge=0, description="The checkpoint to go back to is at least so many steps older than the first bad one."
    )
    rollback_skip_steps: int = Field(
        200, ge=0, description="Steps' worth of data passed over after going back; at least up to the last bad batch."
    )
    max_rollbacks: int = Field(3, ge=0, description="Times to go back within `rollback_memory_steps`, then stop.")
    rollback_memory_steps: Count = Field(2000, description="An older rollback is forgotten.")
    max_epochs: float = Field(
        4.0, gt=0, description="More passes over the data than this, and the run warns that its data are exhausted."
    )
    heartbeat_seconds: float = Field(5.0, gt=0, description="How often each worker is looked at.")
    stall_factor: float = Field(10.0, gt=1, description="A step so many times longer than the median has stalled.")
    stall_seconds: float = Field(120.0, gt=0, description="But not before so many seconds.")
    abort_seconds: float = Field(
        1800.0, ge=0, description="A step that stalls so long ends its worker, and training restarts; 0 never does."
    )
    collective_timeout_seconds: Count = Field(
        1800, description="How long workers wait for each other in a collective operation before they fail."
    )
    memory_limit_ratio: Ratio = Field(0.95, description="Memory of a device, or of a worker's machine, near its limit.")
    throughput_drop_ratio: Ratio = Field(
        0.5, description="Tokens per second below this share of the run's median are told."
    )
    alert_every_seconds: float = Field(300.0, ge=0, description="At most one alert of a kind in so many seconds.")
    profile_steps: list[int] = Field(
        [], description="First and last step to be profiled, such as [10, 13]; nothing where empty."
    )
    peak_flops: float | None = Field(
        None, gt=0, description="Of one device, FLOP/s, for the MFU; the known figure of the device where null."
    )

    @field_validator("profile_steps")
    @classmethod
    def _is_a_range(cls, steps: list[int]) -> list[int]:
        if steps and (len(steps) != 2 or not 0 <= steps[0] <= steps[1]):
            raise ValueError(f"must be empty or [first, last] with 0 <= first <= last, not {steps}")
        return steps
