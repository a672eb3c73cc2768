"""The learning rate as a function of the step."""

import jax.numpy as jnp
import optax

from jaxcnn.config import ScheduleConfig


def make_schedule(config: ScheduleConfig, peak_lr: float, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Returns step -> learning rate.

    In warm-up step t has peak_lr · (t + 1) / warmup_steps, so that no step is wasted at 0 (Goyal et al. 2017, section
    2.2); then the named shape, the cosine being that of Loshchilov & Hutter 2016, equation 5, without restarts.
    """
    warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), total_steps)
    remaining = max(total_steps - warmup_steps, 1)

    def schedule(step):
        warm = (step + 1) / max(warmup_steps, 1)
        if config.name == "constant":
            return peak_lr * jnp.minimum(warm, 1.0)
        progress = jnp.clip((step - warmup_steps) / remaining, 0.0, 1.0)
        shape = config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak_lr * jnp.where(step < warmup_steps, warm, shape)

    return schedule
