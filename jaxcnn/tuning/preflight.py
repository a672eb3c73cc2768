"""All checks before a run, in the order in which a person tunes: data, first loss, signal, a small sample, the rate.

The order is that of Karpathy, "A Recipe for Training Neural Networks" (2019): each check relies on those before it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from jaxcnn.errors import Interrupted
from jaxcnn.job import Job
from jaxcnn.tuning import augment_checks, cost_checks, data_checks, network_checks, signal_checks, training_checks
from jaxcnn.tuning.findings import Finding
from jaxcnn.tuning.subject import Subject

CHECKS: tuple[Callable[[Subject], Finding], ...] = (
    data_checks.labels_in_range,
    data_checks.channel_statistics,
    data_checks.split_overlap,
    augment_checks.augmentation_keeps_content,
    network_checks.initial_loss,
    network_checks.network_outputs,
    network_checks.every_pixel_counts,
    network_checks.examples_are_independent,
    network_checks.blank_input,
    signal_checks.signal_and_gradient,
    signal_checks.dropout_leaves_signal,
    signal_checks.something_trains,
    training_checks.overfits_a_small_sample,
    training_checks.real_labels_beat_shuffled_ones,
    training_checks.learning_rate_in_range,
    training_checks.compute_type_agrees,
)
"""Of built parts: anybody's."""

JOB_CHECKS: tuple[Callable[[Job], Finding], ...] = (cost_checks.loader_keeps_up, cost_checks.memory_and_time)
"""Of a run of a config: what it costs."""


def preflight(subject: Subject, job: Job | None = None) -> Iterator[Finding]:
    """Yields what each check finds, in order, as it is found.

    A check that cannot be carried out because the parts do not fit each other fails with Python's own words.

    Args:
      subject: what is checked.
      job: the run it belongs to, for what it costs; none: that is left out.
    """
    checks = [(check.__name__, lambda check=check: check(subject)) for check in CHECKS]
    if job is not None:
        checks += [(check.__name__, lambda check=check: check(job)) for check in JOB_CHECKS]
    for name, check in checks:
        began = time.perf_counter()
        try:
            found = check()
        except Interrupted:
            raise
        except Exception as error:  # of anybody's parts: flax, XLA, Python have no class of errors in common
            words = " ".join(str(error).split())[:300]
            advice = "the parts do not fit each other: apply model, loss and augmentation to one batch by hand"
            found = Finding(name.replace("_", " "), "fail", f"{type(error).__name__}: {words}", "no error", advice)
        yield dataclasses.replace(found, seconds=time.perf_counter() - began)


def failed(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the findings that say a run would be wasted."""
    return [one for one in findings if one.verdict == "fail"]
