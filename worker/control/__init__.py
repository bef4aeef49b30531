"""The control process: repairs what crashes leave behind, ends jobs, sends webhooks and
sweeps. Every duty is a class with a `step()` that does one round; imports no torch."""
