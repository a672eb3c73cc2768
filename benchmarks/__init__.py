"""Speed and memory beside PyTorch and plain flax: `python -m benchmarks COMMAND`; see benchmarks/README.md.

steps.py inference.py compiling.py memory.py tpu.py   one command each
inputs.py augmenting.py end_to_end.py figure.py          likewise
frozen.py                                                likewise: steps that train the head alone
arguments.py timings.py                                  options and tables that commands share
workloads.py                                             networks and batches; the task that a worker is given
candidates.py                                            who is compared, and the environment of each process
ours.py plain_flax_program.py torch_program.py           what a candidate does in a turn; program.py: what all offer
frozen_ours.py                                           our candidates that train the head alone
plain_flax.py torch_networks.py jax_passes.py            the peers' networks; forward passes of Flax networks
flax_imagenet_resnet.py                                  plain flax's ResNet-50 on a TPU, after the flax example
input_tasks.py                                           the JPEGs, what is made of them, a turn of reading
input_ours.py input_torch.py input_tf.py                 a pipeline of batches each
fairness.py                                              the weights that all get, and the check that follows
worker.py processes.py                                   a worker process, from inside and from outside
comparison.py ratios.py                                  turns in rotation, ratios of pairs
report.py machine.py cards.py                            JSON and Markdown, where it was measured, peaks of cards
"""
