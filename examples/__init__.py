"""Workers to copy: run one with ``python -m examples.agent_loop`` beside a running Holdfast."""
