"""Messages to chat rooms: what each kind of webhook wants, how it is signed, and how it says no.

Slack, DingTalk, Feishu (Lark) and WeCom, or any address that takes JSON. The word `qwen-core` belongs into each text:
custom robots of DingTalk and Feishu can ask for a keyword. Addresses are secrets; nothing here logs or quotes them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote_plus, urlsplit

Shape = Literal["slack", "dingtalk", "feishu", "wecom", "json"]
SHAPES: tuple[Shape, ...] = ("slack", "dingtalk", "feishu", "wecom", "json")


def shape_of(url: str) -> Shape:
    """Tell from a webhook's host what it wants.

    Args:
        url: The webhook.

    Returns:
        The shape; `json` for a host that is not known.
    """
    host = urlsplit(url).hostname or ""
    if host.endswith("dingtalk.com"):
        return "dingtalk"
    if host == "qyapi.weixin.qq.com":
        return "wecom"
    if host.endswith(("feishu.cn", "larksuite.com")):
        return "feishu"
    return "slack" if host.endswith("slack.com") else "json"


def request_of(
    url: str,
    text: str,
    told: Mapping[str, Any],
    *,
    shape: Shape | None = None,
    secret: str | None = None,
    now_seconds: float = 0.0,
) -> tuple[str, dict[str, Any]]:
    """Shape a message, and sign it where the robot asks for that.

    Args:
        url: The webhook.
        text: The message.
        told: More about it, for hosts that are not known.
        shape: What the webhook wants; told by its host where `None`.
        secret: For the signature of a DingTalk or Feishu robot.
        now_seconds: Since the epoch, for the signature.

    Returns:
        Address and JSON body.
    """
    shape = shape or shape_of(url)
    if shape == "slack":
        return url, {"text": text}
    if shape == "wecom":
        return url, {"msgtype": "text", "text": {"content": text}}
    if shape == "dingtalk":
        stamp = str(round(now_seconds * 1000))
        signature = quote_plus(_hmac(secret, f"{stamp}\n{secret}")) if secret else ""
        joint = "&" if urlsplit(url).query else "?"
        signed = f"{url}{joint}timestamp={stamp}&sign={signature}" if secret else url
        return signed, {"msgtype": "text", "text": {"content": text}}
    if shape == "feishu":
        body: dict[str, Any] = {"msg_type": "text", "content": {"text": text}}
        if secret:
            stamp = str(int(now_seconds))
            # Feishu takes stamp and secret for the key, and signs nothing with it.
            body |= {"timestamp": stamp, "sign": _hmac(f"{stamp}\n{secret}", "")}
        return url, body
    return url, {"text": text, "event": dict(told)}


def refusal_of(content: bytes | str) -> str | None:
    """Find a refusal in an answer: DingTalk, WeCom and Feishu answer 200 to what they refuse.

    Args:
        content: The answer's body.

    Returns:
        The code and the reason; `None` where nothing is refused.
    """
    try:
        told = json.loads(content)
    except ValueError:
        return None
    if not isinstance(told, dict) or not (code := told.get("errcode") or told.get("code")):
        return None
    return f"{code}: {str(told.get('errmsg') or told.get('msg') or '')[:200]}"


def _hmac(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()
