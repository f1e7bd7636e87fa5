"""Really fine-tunes MiniLM-L6 for the delta benchmark, in a virtual environment of its own.

Usage: ``python delta_finetune.py MODEL_FOLDER OUT.safetensors RATE STEPS PART``, with jax, tokenizers and safetensors
installed. The recipe: AdamW (betas 0.9 and 0.999, weight decay 0.01 on everything, bias correction, as torch's
default), constant rate, batch 16, in-batch contrastive loss at scale 20 over mean-pooled sentence embeddings, all in
float32. The sentences are the docstrings of Python's own standard library: what a docstring's first paragraph says
against the rest of it. ``PART`` is ``all``, or ``last`` to train the last transformer layer alone. Jax does the
backward pass: it is a tenth of the size of torch.
"""

# mypy: ignore-errors
# (jax and tokenizers live in the other environment, so there is nothing to check against.)

import ast
import sys
import sysconfig
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

BATCH = 16
LENGTH = 64
LAYERS, HEADS, WIDTH = 6, 12, 384


def pairs() -> list[tuple[str, str]]:
    """First paragraph and the rest of every docstring of the standard library, in a fixed order."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                head, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                if len(head) > 20 and len(rest) > 60:
                    found.append((head, rest))
    return found


def embed(weights, tokens, mask):
    """Mean-pooled, normalised sentence embeddings of BERT with GELU, no dropout."""

    def dense(name, x):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        scaled = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[name + ".weight"] + weights[name + ".bias"]

    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm("embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0])
    hidden = (mask[:, None, None, :] - 1.0) * 1e9
    batch, length = tokens.shape

    def split(y):
        return y.reshape(batch, length, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

    for n in range(LAYERS):
        layer = f"encoder.layer.{n}."
        q, k, v = (split(dense(f"{layer}attention.self.{part}", x)) for part in ("query", "key", "value"))
        scores = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / (WIDTH // HEADS) ** 0.5 + hidden)
        mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(batch, length, WIDTH)
        x = norm(f"{layer}attention.output.LayerNorm", x + dense(f"{layer}attention.output.dense", mixed))
        inner = jax.nn.gelu(dense(f"{layer}intermediate.dense", x), approximate=False)
        x = norm(f"{layer}output.LayerNorm", x + dense(f"{layer}output.dense", inner))
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)


def loss(trained, frozen, left, right):
    weights = {**frozen, **trained}
    scores = embed(weights, *left) @ embed(weights, *right).T * 20
    return -jnp.diag(jax.nn.log_softmax(scores)).mean()


@jax.jit
def step(trained, frozen, first, second, count, rate, left, right):
    value, gradient = jax.value_and_grad(loss)(trained, frozen, left, right)
    out = {}, {}, {}
    for name, weight in trained.items():
        m = 0.9 * first[name] + 0.1 * gradient[name]
        v = 0.999 * second[name] + 0.001 * gradient[name] ** 2
        update = (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
        out[0][name] = weight * (1 - rate * 0.01) - rate * update
        out[1][name], out[2][name] = m, v
    return value, *out


def main(folder: str, out: str, rate: str, steps: str, part: str) -> None:
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    original = load_file(Path(folder) / "model.safetensors")
    floats = {name: jnp.asarray(a) for name, a in original.items() if a.dtype == np.float32}
    last = f"encoder.layer.{LAYERS - 1}."
    trained = {name: a for name, a in floats.items() if part == "all" or name.startswith(last)}
    frozen = {name: a for name, a in floats.items() if name not in trained}
    zeros = {name: jnp.zeros_like(a) for name, a in trained.items()}
    first, second = zeros, dict(zeros)
    texts = pairs()
    order = np.random.default_rng(0).permutation(len(texts))
    for n in range(int(steps)):
        chosen = [texts[order[(n * BATCH + i) % len(order)]] for i in range(BATCH)]
        sides = []
        for side in range(2):
            encoded = tokenizer.encode_batch([pair[side] for pair in chosen])
            sides.append(
                (np.array([e.ids for e in encoded]), np.array([e.attention_mask for e in encoded], "f4"))
            )
        value, trained, first, second = step(trained, frozen, first, second, n + 1.0, float(rate), *sides)
        if n % 20 == 0:
            print(f"step {n} of {steps}: loss {float(value):.4f}", file=sys.stderr, flush=True)
    result = {name: np.asarray(trained[name]) if name in trained else a for name, a in original.items()}
    save_file(result, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
