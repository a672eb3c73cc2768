"""Speed and memory beside PyTorch and plain flax: `python -m benchmarks COMMAND`; see benchmarks/README.md.

workloads.py   the networks and batches that are measured, and the task that a worker process is given
fairness.py    weights that every candidate gets, and the check that all give the same logits for them
candidates.py  who is compared, and what each needs of its process
ours.py, plain_flax_program.py, torch_program.py   one candidate each; its networks in plain_flax.py, torch_networks.py
worker.py, processes.py   a worker process, from inside and from outside
comparison.py  turns in rotation, pairwise ratios
report.py, machine.py, cards.py   JSON, Markdown, where it was measured
steps.py, inference.py, compiling.py, memory.py, figure.py   one command each
"""
