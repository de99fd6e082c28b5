"""Edits of lm/model.py that someone who learns from it may try."""

from tests.conftest import ROOT

NORM = "nn.LayerNorm(config.d_model)"
EDITS = {
    "scale of attention": ("/ math.sqrt(D)", "/ D"),
    "no causal mask": ("scores.masked_fill(future, -math.inf).softmax", "scores.softmax"),
    "another activation": ('F.gelu(self.up(x), approximate="tanh")', "F.silu(self.up(x))"),
    "exact GELU": ('approximate="tanh"', 'approximate="none"'),
    "no final norm": (f'{NORM} if config.norm == "pre" else nn.Identity()', "nn.Identity()"),
    "another epsilon": (NORM, "nn.LayerNorm(config.d_model, eps=1e-6)"),
    "positions shifted": (
        "self.position_embedding.weight[first:end]",
        "self.position_embedding.weight.roll(1, 0)[first:end]",
    ),
    "no residual": ("x = x + self.mlp(self.norm_2(x)", "x = self.mlp(self.norm_2(x)"),
    "untied head": ("if config.tie_embeddings:", "if False:"),
    "capped logits": ("= self.lm_head(x)", "= 9 * torch.tanh(self.lm_head(x) / 9)"),
    "token shift": (
        "for block in self.blocks:",
        "x = x + 0.5 * F.pad(x, (0, 0, 1, 0))[:, :-1]\n        for block in self.blocks:",
    ),
}
"""What it replaces, and by what."""


def edited_source(module: str, edit: str) -> str:
    """The text of a module below tinygpt/ after an edit."""
    source = (ROOT / "tinygpt" / module).read_text(encoding="utf-8")
    old, new = EDITS[edit]
    assert old in source, f"{module} no longer contains {old!r}"
    return source.replace(old, new)
