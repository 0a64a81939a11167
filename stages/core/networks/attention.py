"""Attention said in plain layers, for networks that hide theirs in nn.MultiheadAttention.

Its projections are bare parameters there: nothing that prunes, quantizes or exports linear layers finds them.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

RENAMED = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"} | {
    f"out_proj.{kind}": f"proj.{kind}" for kind in ("weight", "bias")
}


class Attention(nn.Module):
    """Of tokens to each other (Vaswani et al. 2017); called, filled and answering as the one it is built from."""

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        width, biased = original.embed_dim, original.in_proj_bias is not None
        self.num_heads, self.head_dim = original.num_heads, original.head_dim
        self.scale, self.dropout = self.head_dim**-0.5, original.dropout
        self.qkv = nn.Linear(width, 3 * width, bias=biased)
        self.proj = nn.Linear(width, width, bias=biased)
        self.register_load_state_dict_pre_hook(_rename)
        self.load_state_dict(original.state_dict())

    def forward(self, query: Tensor, _key: Tensor, _value: Tensor, *, need_weights: bool) -> tuple[Tensor, None]:
        del need_weights
        batch, tokens = query.shape[:2]
        split = self.qkv(query).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        heads = functional.scaled_dot_product_attention(*split.unbind(0), dropout_p=dropout, scale=self.scale)
        return self.proj(heads.transpose(1, 2).flatten(2)), None


def said_plainly(network: nn.Module) -> nn.Module:
    """In place."""
    hidden = [name for name, module in network.named_modules() if isinstance(module, nn.MultiheadAttention)]
    for name in hidden:
        original: Any = network.get_submodule(name)
        network.set_submodule(name, Attention(original))
    return network


def _rename(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    for before, after in RENAMED.items():
        if prefix + before in state:
            state[prefix + after] = state.pop(prefix + before)
