"""What a policy in shadow decided, beside the controller that drove."""

from __future__ import annotations

from typing import Any

from sea_dbs.report.session_data import SessionData


def facts(data: SessionData) -> dict[str, Any] | None:
    """Both side by side; None: the session had no shadow. Shares are of slots of the decisions that both decided."""
    policy = data.session.get("shadow")
    if policy is None:
        return None
    both = [(row["mask"], row["shadow_mask"]) for row in data.decisions if row["shadow_mask"] is not None]
    pairs = [(a, b) for drove, shadow in both for a, b in zip(drove, shadow, strict=False)]
    slots = len(pairs)
    checked = [row["shadow_logits_differ"] for row in data.decisions if row["shadow_logits_differ"] is not None]
    return {
        "drives": data.session["controller"],
        "policy": policy,
        "decided_on": data.decide_on,
        "decisions": len(data.decisions),
        "decisions_of_the_policy": len(both),
        "refused": sum(row["shadow_mask"] is None for row in data.decisions),
        "agreement": sum(a == b for a, b in pairs) / slots if slots else None,
        "decisions_alike": sum(drove == shadow for drove, shadow in both),
        "duty_of_the_controller": sum(a == "1" for a, _ in pairs) / slots if slots else None,
        "duty_of_the_policy": sum(b == "1" for _, b in pairs) / slots if slots else None,
        "pulses_of_the_policy": sum(b == "1" for _, b in pairs),
        "pulses_that_only_the_policy_would_give": sum(pair == ("0", "1") for pair in pairs),
        "logits_that_differ": sum(checked) if checked else None,
        "applied": "nothing of it",
    }


def sentence(found: dict[str, Any]) -> str:
    """For people."""
    if found["agreement"] is None:
        return f"in shadow: {found['policy']} decided nothing in {found['decisions']} decisions"
    return (
        f"in shadow: {found['policy']} would have given {found['pulses_of_the_policy']} pulses (duty "
        f"{found['duty_of_the_policy']:.2f}, {found['drives']} {found['duty_of_the_controller']:.2f}); they agree in "
        f"{found['agreement']:.0%} of the slots; none of it was applied"
    )
