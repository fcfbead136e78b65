"""Whether one controller works, as one machine sees it: probes and answers in, verdicts out.

Two probes travel inside the tunnel. *Through* goes to our own turning address: the controller forwards it back, so an
answer proves all that we need of it. *Echo* goes to the controller's `::1`; it tells a controller that is silent from
one that answers and does not forward. Of controllers, controllers want an echo alone.

An unanswered probe is no more than a doubt. It starts a burst of both kinds, and only a burst without any answer is
silence; so one packet in five may be lost, and no controller is called dead. The way back takes longer: answers must
have been steady for a while, the longer the more often the controller came and went.

Pure: times are seconds of one clock that goes on while the machine sleeps (CLOCK_BOOTTIME), handed in. Whoever hands
them in reads all answers that wait before it asks for a judgement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Verdict(Enum):
    UP = "up"
    SILENT = "silent"
    NOT_FORWARDING = "does not forward"


class Probe(Enum):
    ECHO = "echo"
    THROUGH = "through"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Every constant of health and redundancy. The defaults are what `docs/redundancy.md` promises."""

    in_use_s: float = 0.15  # between probes of a controller that carries something for us
    at_rest_s: float = 2.0
    probes_per_s: float = 10.0  # to all controllers together at rest; beyond it, the pace is stretched
    probes_per_s_in_use: float = 60.0
    burst_s: float = 0.03
    silent_rounds: int = 6  # of a burst; with a fifth of all packets lost, once in many years (0.2 ** 12)
    not_forwarding_rounds: int = 12
    shortest_timeout_s: float = 0.1
    longest_timeout_s: float = 1.0
    grace_s: float = 1.0  # after a start, or a sleep: the first handshake takes its time
    stall_s: float = 1.0  # a judge who is later than that slept, and must not judge what he cannot have heard
    gap_s: float = 1.5  # between answers that still count as steady
    hold_s: float = 2.0
    longest_hold_s: float = 60.0
    eager_hold_s: float = 0.4  # where nobody carries, there is nothing that a hasty return could break
    forget_flap_s: float = 60.0  # up for that long makes up for one fall
    patient_s: float = 60.0  # of silence, after which a dead controller is asked and called less often
    renewal_s: float = 1.0
    patient_renewal_s: float = 5.0
    least_report_s: float = 10.0  # between reports that say nothing new
    reports_per_s: float = 100.0  # to one controller from all peers together; beyond it, the pace is stretched
    forget_reports: float = 3.5  # what was not said again for that many times `report_s`
    forget_drain_s: float = 120.0
    word_wait_s: float = 5.0  # for a controller's word on when to return to it, before each returns by itself
    together_s: float = 3.0  # that a controller which is back waits for the slower ones
    move_lead_s: float = 0.3  # between the first word of a move and the move
    repeat_s: float = 0.1  # between the times that a signal is sent

    peers: int = 0  # of the mesh

    @property
    def report_s(self) -> float:
        """Between reports that say nothing new, in a mesh of so many peers."""
        return max(self.least_report_s, self.peers / self.reports_per_s)

    @property
    def forget_s(self) -> float:
        """After that long, what a machine said and did not repeat holds no more."""
        return self.forget_reports * self.report_s

    @property
    def noticed_s(self) -> float:
        """The longest that a death goes unnoticed at rest, with few controllers and up to 200 ms of round trip."""
        return self.at_rest_s * (1 + JITTER) + self.longest_timeout_s + self.not_forwarding_rounds * self.burst_s

    @property
    def noticed_in_use_s(self) -> float:
        """The same for a controller that carries something for us, on a short way."""
        return self.in_use_s * (1 + JITTER) + 2 * self.shortest_timeout_s + self.silent_rounds * self.burst_s


TUNING = Tuning()
JITTER = 0.25  # of an interval at rest, either way

_REMEMBERED_ROUNDS = 48
_FALLBACK_RTT_S = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """One or both probes, sent at once. `echoed`: somebody has answered an echo of this round or a later one."""

    number: int
    sent_s: float
    echoed: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one controller. `rounds`: without the answer that proves all, oldest first."""

    proof: Probe  # the kind whose answer proves all that we need
    verdict: Verdict
    since_s: float  # of the verdict
    grace_until_s: float
    rounds: tuple[Round, ...] = ()
    doubted: bool = False
    last_sent_s: float = float("-inf")
    last_answer_s: float = float("-inf")  # of any kind
    last_proof_s: float = float("-inf")
    steady_since_s: float = float("inf")  # inf: nothing proves it now
    rtt_s: float = _FALLBACK_RTT_S
    rtt_varies_s: float = 0.0
    flaps: int = 0
    renewals: int = 0  # since it fell silent
    renewal_due_s: float = float("inf")

    @property
    def is_up(self) -> bool:
        return self.verdict is Verdict.UP

    @property
    def is_steady(self) -> bool:
        """It does not work yet, and answers."""
        return not self.is_up and self.steady_since_s < float("inf")


def begin(proof: Probe, now_s: float, verdict: Verdict = Verdict.UP, tuning: Tuning = TUNING) -> Health:
    """A controller of which nothing was heard. Where it is known to have been lost, it has to prove itself."""
    renewal_due_s = now_s if verdict is Verdict.SILENT else float("inf")
    return Health(proof, verdict, now_s, now_s + tuning.grace_s, renewal_due_s=renewal_due_s)


def kinds(health: Health) -> tuple[Probe, ...]:
    """What the next round consists of."""
    if health.proof is Probe.ECHO or (health.is_up and not health.doubted):
        return (health.proof,)
    return (Probe.ECHO, health.proof)


def sent(health: Health, number: int, now_s: float) -> Health:
    """A round of `kinds(health)` goes out; numbers grow."""
    rounds = (*health.rounds[-_REMEMBERED_ROUNDS:], Round(number, now_s))
    return replace(health, rounds=rounds, last_sent_s=now_s)


def answered(
    health: Health, kind: Probe, number: int, now_s: float, tuning: Tuning = TUNING, *, eager: bool = False
) -> Health:
    """An answer came in; one to a round that nobody remembers proves nothing. `eager`: nobody else carries."""
    place = next((place for place, each in enumerate(health.rounds) if each.number == number), None)
    if place is None:
        return health
    health = _measured(replace(health, last_answer_s=now_s), now_s - health.rounds[place].sent_s)
    answered_rounds, later = health.rounds[: place + 1], health.rounds[place + 1 :]
    if kind is not health.proof:
        return replace(health, rounds=(*(replace(each, echoed=True) for each in answered_rounds), *later))
    steady_since_s = health.steady_since_s if now_s - health.last_proof_s <= tuning.gap_s else now_s
    health = replace(health, rounds=later, doubted=False, last_proof_s=now_s, steady_since_s=min(steady_since_s, now_s))
    needed_s = tuning.eager_hold_s if eager else hold_s(health, tuning)
    if not health.is_up and now_s - health.steady_since_s >= needed_s:
        return replace(health, verdict=Verdict.UP, since_s=now_s, renewals=0, renewal_due_s=float("inf"))
    return health


def judged(health: Health, now_s: float, tuning: Tuning = TUNING) -> Health:
    """The verdict for what was not answered until now."""
    sent_by_s = now_s - timeout_s(health, tuning)
    late = [each for each in health.rounds if each.sent_s <= sent_by_s]
    if health.is_up:
        return _judged_up(health, late, now_s, tuning)
    if health.is_steady and now_s - health.last_proof_s > tuning.gap_s:
        health = replace(health, steady_since_s=float("inf"))
    if health.verdict is Verdict.NOT_FORWARDING:
        # Counted in rounds, since they become rare with time.
        unheard = sum(not each.echoed for each in late)
        if unheard >= tuning.silent_rounds and now_s - health.last_answer_s > tuning.gap_s:
            return replace(health, verdict=Verdict.SILENT, since_s=now_s, renewals=0, renewal_due_s=now_s)
    elif _answers(health, now_s, tuning) and not health.is_steady and health.proof is Probe.THROUGH:
        return replace(health, verdict=Verdict.NOT_FORWARDING, since_s=now_s, renewal_due_s=float("inf"))
    return health


def _judged_up(health: Health, late: list[Round], now_s: float, tuning: Tuning) -> Health:
    if late and not health.doubted:
        # What made us doubt does not count: the burst alone decides.
        return replace(health, doubted=True, rounds=tuple(each for each in health.rounds if each not in late))
    if not health.doubted or now_s < health.grace_until_s:
        return health
    unheard = sum(not each.echoed for each in late)
    if unheard >= tuning.silent_rounds and not late[-1].echoed:
        return _fallen(health, Verdict.SILENT, now_s, tuning)
    if len(late) >= tuning.not_forwarding_rounds and health.proof is Probe.THROUGH:
        return _fallen(health, Verdict.NOT_FORWARDING, now_s, tuning)
    return health


def _fallen(health: Health, verdict: Verdict, now_s: float, tuning: Tuning) -> Health:
    made_up_for = int((now_s - health.since_s) / tuning.forget_flap_s)
    return replace(
        health,
        verdict=verdict,
        since_s=now_s,
        doubted=False,
        steady_since_s=float("inf"),
        flaps=max(0, health.flaps - made_up_for) + 1,
        renewals=0,
        renewal_due_s=now_s if verdict is Verdict.SILENT else float("inf"),
    )


def woken(health: Health, now_s: float, tuning: Tuning = TUNING) -> Health:
    """Nobody listened until now: nothing that was asked before counts, and there is a doubt to be cleared up."""
    return replace(
        health,
        rounds=(),
        doubted=health.is_up,
        last_sent_s=float("-inf"),
        steady_since_s=float("inf"),
        grace_until_s=now_s + tuning.grace_s,
    )


def renewed(health: Health, now_s: float, spread: float, tuning: Tuning = TUNING) -> Health:
    """Its session starts anew. `spread` in -1..1: by how much of the jitter the next time is off."""
    patient = now_s - health.since_s > tuning.patient_s
    pause_s = tuning.patient_renewal_s if patient else tuning.renewal_s
    # A handshake takes a round trip, and a renewal in the middle of one would undo it.
    pause_s = max(pause_s, 2 * health.rtt_s + tuning.renewal_s / 2) * (1 + JITTER * spread)
    return replace(health, renewals=health.renewals + 1, renewal_due_s=now_s + pause_s)


def wants_renewal(health: Health, now_s: float, tuning: Tuning = TUNING) -> bool:
    """It is silent, and nothing has come from it since: it may have lost the session that we still have."""
    is_due = health.verdict is Verdict.SILENT and health.renewal_due_s <= now_s
    return is_due and not _answers(health, now_s, tuning)


def _answers(health: Health, now_s: float, tuning: Tuning) -> bool:
    """Whether a controller that is down has answered something since, and lately."""
    return health.last_answer_s > health.since_s and now_s - health.last_answer_s <= tuning.gap_s


def next_round_s(health: Health, pace_s: float, spread: float, now_s: float, tuning: Tuning = TUNING) -> float:
    """When to send the next round. `pace_s`: what is usual now; `spread` in -1..1: how much of the jitter."""
    if health.is_up and health.doubted:
        return health.last_sent_s + tuning.burst_s
    if not health.is_up and (health.is_steady or now_s - health.since_s <= tuning.patient_s):
        pace_s = min(pace_s, tuning.in_use_s)
    return health.last_sent_s + pace_s * (1 + JITTER * spread)


def next_judgement_s(health: Health, now_s: float, tuning: Tuning = TUNING) -> float:
    """When time alone may change the verdict; inf: not before another answer or probe."""
    at_s = float("inf")
    if health.is_up:
        wait_s = timeout_s(health, tuning)
        at_s = min((each.sent_s + wait_s for each in health.rounds if each.sent_s + wait_s > now_s), default=at_s)
    if health.is_up and health.doubted and health.grace_until_s > now_s:
        at_s = min(at_s, health.grace_until_s)
    if health.verdict is not Verdict.SILENT:
        return at_s
    # As long as it answers, it wants no renewal, however long that has been due.
    answered_until_s = health.last_answer_s + tuning.gap_s if _answers(health, now_s, tuning) else now_s
    return min(at_s, max(health.renewal_due_s, answered_until_s))


def timeout_s(health: Health, tuning: Tuning = TUNING) -> float:
    """How long an answer may take."""
    usual_s = 1.5 * health.rtt_s + 4 * health.rtt_varies_s
    return min(tuning.longest_timeout_s, max(tuning.shortest_timeout_s, usual_s))


def hold_s(health: Health, tuning: Tuning = TUNING) -> float:
    """How long answers must be steady before the controller counts as up again; it doubles with each flap."""
    return float(min(tuning.longest_hold_s, tuning.hold_s * 2 ** (min(max(health.flaps, 1), 16) - 1)))


def _measured(health: Health, rtt_s: float) -> Health:
    """Smoothed round trip, and how far it strays (RFC 6298, section 2)."""
    if health.rtt_varies_s == 0.0 and health.rtt_s == _FALLBACK_RTT_S:
        return replace(health, rtt_s=rtt_s, rtt_varies_s=rtt_s / 2)
    varies_s = 0.75 * health.rtt_varies_s + 0.25 * abs(health.rtt_s - rtt_s)
    return replace(health, rtt_s=0.875 * health.rtt_s + 0.125 * rtt_s, rtt_varies_s=varies_s)
