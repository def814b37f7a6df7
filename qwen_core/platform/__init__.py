"""The platform on one machine: what `qwen-core up` starts and `qwen-core down` ends."""

from qwen_core.platform.platform import Platform, ServiceStatus

__all__ = ["Platform", "ServiceStatus"]
