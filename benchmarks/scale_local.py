"""Time and peak memory, forward and backward, of local attention at growing sizes, and of group attention."""

from itertools import pairwise

from benchmarks.measure import in_fresh_process

SIZES = {"grid": (32, 64, 128, 256), "points": (1024, 4096, 16384, 65536)}

for domain, sizes in SIZES.items():
    found = [in_fresh_process("benchmarks.local:local_attention", domain, size) for size in sizes]
    growth = [None, *({key: b[key] / a[key] / 4 for key in a} for a, b in pairwise(found))]
    print(f"{domain}: four times the tokens in each row; growth relative to the row above and to linear")
    for size, now, grown in zip(sizes, found, growth, strict=True):
        name = f"{size} × {size}" if domain == "grid" else f"{size}"
        line = f"{name:>10}  {now['seconds']:7.3f} s  {now['bytes'] / 2**20:7.0f} MB"
        print(line + (f"  time {grown['seconds']:.2f}  memory {grown['bytes']:.2f}" if grown else ""), flush=True)

print("group self-attention, 28 × 28, discs that cover 5 × 5, 8 fields, batch 1")
for group in ("C8", "D4"):
    for checkpointing in (False, True):
        now = in_fresh_process("benchmarks.local:group_attention", group, 28, 8**0.5, checkpointing)
        how = "  with checkpointing" if checkpointing else ""
        print(f"{group:>10}  {now['seconds']:7.3f} s  {now['bytes'] / 2**20:7.0f} MB{how}", flush=True)
