"""How large a model is and how much it computes: parameters by part, FLOPs for each token, time for a budget.

All figures follow from a `ModelConfig` by hand-checkable arithmetic; no model is built. `memory.py` adds what a GPU
must hold under a parallel plan.

Legend: L layers, E hidden, H heads, K key/value heads, D head dim, S sequence, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from qwen_core.model.config import ModelConfig

SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Layer:
    """Parameters of one layer, by part.

    Attributes:
        attention: The four projections and their biases.
        norms: Both of the layer, and those of queries and keys.
        mlp: Of a dense layer.
        router: The gate, and the shared expert's.
        shared_expert: The expert that every token meets.
        expert: One of the routed experts.
        num_experts: How many routed experts there are.
        num_experts_per_tok: How many of them a token meets.
    """

    attention: int
    norms: int
    mlp: int = 0
    router: int = 0
    shared_expert: int = 0
    expert: int = 0
    num_experts: int = 0
    num_experts_per_tok: int = 0

    @property
    def outside_experts(self) -> int:
        """Parameters that every token meets."""
        return self.attention + self.norms + self.mlp + self.router + self.shared_expert

    @property
    def total(self) -> int:
        """All parameters."""
        return self.outside_experts + self.num_experts * self.expert

    @property
    def active(self) -> int:
        """Parameters that one token meets."""
        return self.outside_experts + self.num_experts_per_tok * self.expert


def layer_parameters(config: ModelConfig, layer: int) -> Layer:
    """Count one layer's parameters.

    Args:
        config: The architecture.
        layer: From 0.

    Returns:
        Counts by part.
    """
    hidden, query, key = config.hidden_size, config.query_size, config.key_size
    attention = 2 * hidden * query + 2 * hidden * key + (query + 2 * key if config.has_qkv_bias else 0)
    norms = 2 * hidden + (2 * config.head_dim if config.has_qk_norm else 0)
    if not config.is_sparse(layer):
        return Layer(attention, norms, mlp=3 * hidden * config.intermediate_size)
    shared = config.shared_expert_intermediate_size
    return Layer(
        attention,
        norms,
        router=hidden * config.num_experts + (hidden if shared else 0),
        shared_expert=3 * hidden * shared,
        expert=3 * hidden * config.moe_intermediate_size,
        num_experts=config.num_experts,
        num_experts_per_tok=config.num_experts_per_tok,
    )


@dataclass(frozen=True)
class Parameters:
    """Parameters of a whole model.

    Attributes:
        embedding: V x E, once.
        head: V x E where it is not the embedding, else 0.
        final_norm: The norm below the head.
        layers: One entry for each layer.
    """

    embedding: int
    head: int
    final_norm: int
    layers: tuple[Layer, ...]

    @property
    def total(self) -> int:
        """All parameters; a tied head counts once."""
        return self.embedding + self.head + self.final_norm + sum(layer.total for layer in self.layers)

    @property
    def active(self) -> int:
        """Those that a token meets, embedding and head included, as model cards count them."""
        return self.embedding + self.head + self.final_norm + sum(layer.active for layer in self.layers)

    @property
    def without_embeddings(self) -> int:
        """All but embedding and head."""
        return self.total - self.embedding - self.head

    def by_part(self) -> dict[str, int]:
        """Sum each part over the layers.

        Returns:
            Parts that the model has, in the order of the forward pass; they add up to `total`.
        """
        parts = {"embedding": self.embedding}
        for name in ("attention", "mlp", "router", "shared_expert"):
            parts[name] = sum(getattr(layer, name) for layer in self.layers)
        parts["experts"] = sum(layer.num_experts * layer.expert for layer in self.layers)
        parts["norms"] = self.final_norm + sum(layer.norms for layer in self.layers)
        parts["head"] = self.head
        return {name: count for name, count in parts.items() if count}


def count_parameters(config: ModelConfig) -> Parameters:
    """Count a model's parameters.

    Args:
        config: The architecture.

    Returns:
        Counts by part and layer.
    """
    table = config.vocab_size * config.hidden_size
    layers = tuple(layer_parameters(config, layer) for layer in range(config.num_hidden_layers))
    return Parameters(table, 0 if config.tie_word_embeddings else table, config.hidden_size, layers)


def flops_per_token(config: ModelConfig, seq_len: int, *, is_causal: bool = True) -> float:
    """Count the floating point operations that training on one token takes, forward and backward.

    Each weight of a matrix product takes 2 operations forward and 4 backward: 6 N (Kaplan et al., 2020,
    arXiv 2001.08361). N are the weights that a token is multiplied by: of the experts only those it meets, the head
    also where it is tied, not the embedding, which is a look-up, and no norms and biases. Attention adds the scores and
    the weighted values, 12 L H D S (PaLM, Chowdhery et al., 2022, arXiv 2204.02311, appendix B). A causal mask needs
    half of them, and no kernel worth the name computes the other half, so that half is not counted here; PaLM and
    nanoGPT count it, which makes their MFU of long sequences higher: `is_causal=False` gives theirs. Recomputation is
    never counted.

    Args:
        config: The architecture.
        seq_len: Tokens of a sequence; of a packed one, of its documents, or the sequence as an upper bound.
        is_causal: Count only the half of attention that is needed.

    Returns:
        Operations for each token.
    """
    head = config.vocab_size * config.hidden_size
    weights = head + sum(_multiplied(config, layer) for layer in range(config.num_hidden_layers))
    attention = 12 * config.num_hidden_layers * config.query_size * seq_len
    return float(6 * weights + (attention // 2 if is_causal else attention))


def _multiplied(config: ModelConfig, layer: int) -> int:
    """Count the weights of a layer that a token is multiplied by."""
    counts = layer_parameters(config, layer)
    biases = config.query_size + 2 * config.key_size if config.has_qkv_bias else 0
    return counts.active - counts.norms - biases


def tokens_per_second(config: ModelConfig, seq_len: int, gpus: int, peak_flops: float, mfu: float) -> float:
    """Say how fast training goes at a given utilisation.

    Args:
        config: The architecture.
        seq_len: Tokens of a sequence.
        gpus: How many there are.
        peak_flops: Operations a second that one of them has at the training precision; 989e12 for an H100 in bf16.
        mfu: Model FLOPs utilisation, 0 to 1.

    Returns:
        Tokens a second over all of them.
    """
    return gpus * peak_flops * mfu / flops_per_token(config, seq_len)
