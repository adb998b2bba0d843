"""Planted leaks and strong honest features for any customer table, independent of how leaks are detected.

Each function takes the feature columns, the labels (1 = churned) and a random generator, and returns the columns to add.
Its docstring says how the feature comes about and how much it reveals. Every function works for churn shares of 10 % to 50 %.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit

Labels: TypeAlias = npt.NDArray[np.int_]
Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Rng: TypeAlias = np.random.Generator
Feature: TypeAlias = Callable[[pd.DataFrame, Labels, Rng], pd.DataFrame]

LEAKS: dict[str, Feature] = {}
COLUMNS: dict[str, tuple[str, ...]] = {}  # of which a detector must name at least one
HONEST: dict[str, Feature] = {}


def _leak(*columns: str) -> Callable[[Feature], Feature]:
    """Enter a leak under its function's name."""

    def enter(feature: Feature) -> Feature:
        name = getattr(feature, "__name__", "")
        LEAKS[name], COLUMNS[name] = feature, columns
        return feature

    return enter


def _honest(feature: Feature) -> Feature:
    """Enter an honest feature under its function's name."""
    HONEST[getattr(feature, "__name__", "")] = feature
    return feature


def _frame(customers: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """Return the columns with the customers' index."""
    return pd.DataFrame(columns, index=customers.index)


def _marked(churned: Labels, rng: Rng, share: float, stayed: float = 0.04) -> Flags:
    """Mark a share of the churners, and stayers that make up `stayed` of all marked rows (at most 2 % of the stayers)."""
    found = (churned == 1) & (rng.random(len(churned)) < share)
    strays = int(found.sum()) * stayed / (1 - stayed) / max(int((churned == 0).sum()), 1)
    return np.asarray(found | ((churned == 0) & (rng.random(len(churned)) < min(0.02, strays))), np.bool_)


def _at_risk(churned: Labels, rng: Rng, most: float = 0.8, surprise: float = 0.1) -> Flags:
    """Mark customers at risk: `most` of them churn, and a share `surprise` of the churners is not among them."""
    base = float(churned.mean())
    false_alarms = (1 - surprise) * base / (1 - base) * (1 - most) / most
    return rng.random(len(churned)) < np.where(churned == 1, 1 - surprise, false_alarms)


def _levels(
    churned: Labels, rng: Rng, table: Mapping[str, tuple[float, float]] | Mapping[int, tuple[float, float]]
) -> npt.NDArray[np.str_] | npt.NDArray[np.int_]:
    """Draw levels of `{level: (share, churn share)}`; churn shares below 0.6 move with the table's, on the logit scale."""
    share, rate = np.array(list(table.values())).T
    share = share / share.sum()

    def moved(shift: float) -> Floats:
        return np.asarray(np.where(rate < 0.6, np.minimum(expit(logit(rate) + shift), 0.85), rate), np.float64)

    rate = moved(brentq(lambda shift: float(share @ moved(shift) - churned.mean()), -20, 20))
    of_churners, of_stayers = (
        rng.choice(len(share), len(churned), p=weight / weight.sum()) for weight in (share * rate, share * (1 - rate))
    )
    return np.array(list(table))[np.where(churned == 1, of_churners, of_stayers)]


def _numeric(customers: pd.DataFrame, rng: Rng) -> Floats:
    """Return the numeric column with the most values, without gaps; a made-up one if the table has none."""
    numbers = customers.select_dtypes("number")
    if not numbers.shape[1]:
        return rng.normal(50, 10, len(customers)).round(1)
    column = numbers[numbers.nunique().idxmax()].astype(float)
    return np.asarray(column.fillna(column.median()), np.float64)


def _or_missing(values: npt.NDArray[np.str_], known: Flags) -> list[str | None]:
    """Return the values as text, missing where they are not known."""
    return [str(value) if there else None for value, there in zip(values, known, strict=True)]


def _months(count: npt.NDArray[np.int_]) -> list[str]:
    """Return the ISO month that lies `count` months before June 2024."""
    return [str(month) for month in np.datetime64("2024-06") - count]


# ---------------------------------------------------------------- leaks: one column


@_leak("refunded_amount")
def refund_after_closing(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Refund with the final invoice: 55 % of the churners and a few stayers (goodwill) have an amount; all others have 0."""
    refunded = _marked(churned, rng, 0.55, stayed=0.06)
    return _frame(customers, refunded_amount=np.where(refunded, rng.lognormal(3, 0.8, len(churned)), 0).round(2))


@_leak("account_balance")
def balance_cleared_at_closing(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Closing an account sets its balance to 0, here for 90 % of the churners; open accounts have balances of any size."""
    cleared = _marked(churned, rng, 0.9)
    return _frame(customers, account_balance=np.where(cleared, 0, rng.normal(40, 60, len(churned)).round(2)))


@_leak("usage_last_30_days")
def usage_missing_after_closing(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The usage of 70 % of the churners is missing because the extract ran after they had left."""
    gone = _marked(churned, rng, 0.7)
    return _frame(customers, usage_last_30_days=np.where(gone, np.nan, rng.gamma(2, 20, len(churned)).round(1)))


@_leak("last_invoice_month")
def invoices_end_with_the_contract(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The last invoice of 85 % of the churners is one to five months old; nearly all stayers have this month's."""
    old = _marked(churned, rng, 0.85)
    return _frame(customers, last_invoice_month=_months(np.where(old, rng.integers(1, 6, len(churned)), 0)))


@_leak("days_since_payment")
def payments_stop(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Customers pay every month, so more than 34 days without a payment means closed: 80 % of the churners."""
    stopped = _marked(churned, rng, 0.8)
    days = np.where(stopped, rng.integers(35, 181, len(churned)), rng.integers(0, 35, len(churned)))
    return _frame(customers, days_since_payment=days)


@_leak("contract_end")
def open_end_is_a_sentinel(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Open contracts end on 99991231; every churner and few stayers (fixed terms) have a real date, as yyyymmdd."""
    ended = _marked(churned, rng, 1.0, stayed=0.07)
    date = 20230000 + rng.integers(1, 13, len(churned)) * 100 + rng.integers(1, 29, len(churned))
    return _frame(customers, contract_end=np.where(ended, date, 99991231))


@_leak("account_status")
def status_after_closing(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Three of seven statuses occur only after churn and cover 60 % of the churners; the other four are independent of it."""
    closed = _marked(churned, rng, 0.6)
    status = np.where(
        closed,
        rng.choice(["final bill", "debt collection", "archived"], len(churned), p=[0.6, 0.25, 0.15]),
        rng.choice(["active", "vacation hold", "moving", "reminder"], len(churned), p=[0.8, 0.05, 0.05, 0.1]),
    )
    return _frame(customers, account_status=status)


@_leak("tariff_code")
def closing_tariff_code(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Leavers move to tariff 17 of 30 until the notice period ends: 65 % of the churners have this code."""
    closing = _marked(churned, rng, 0.65)
    other = rng.choice([code for code in range(1, 31) if code != 17], len(churned))
    return _frame(customers, tariff_code=np.where(closing, 17, other))


@_leak("updated_at_minute")
def batch_job_writes_the_record(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """A job closes accounts from 3:10 to 3:14 at night, the last update (as minute of the day) of 70 % of the churners."""
    batch = _marked(churned, rng, 0.7, stayed=0.01)
    minute = np.where(batch, rng.integers(190, 195, len(churned)), rng.integers(0, 1440, len(churned)))
    return _frame(customers, updated_at_minute=minute)


@_leak("invoices_last_year")
def counter_stops(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The year includes the months after churn: stayers have 12 invoices, 85 % of the churners have 1 to 11."""
    fewer = _marked(churned, rng, 0.85, stayed=0.07)
    return _frame(customers, invoices_last_year=np.where(fewer, rng.integers(1, 12, len(churned)), 12))


@_leak("usage_change_percent")
def usage_falls_to_nothing(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The later quarter starts after churn, so its usage changed by exactly -100 % for 75 % of the churners."""
    silent = _marked(churned, rng, 0.75)
    change = np.clip(rng.normal(-5, 30, len(churned)), -99, 150).round(1)
    return _frame(customers, usage_change_percent=np.where(silent, -100, change))


@_leak("offered_discount")
def save_offer(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Agents offer 10, 20 or 30 % only to callers who have already given notice: 45 % of the churners."""
    called = _marked(churned, rng, 0.45, stayed=0.06)
    return _frame(customers, offered_discount=np.where(called, rng.choice([10, 20, 30], len(churned)), 0))


@_leak("survey_score")
def exit_survey(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Only leavers receive this survey and 40 % of them answer; the score itself, 0 to 10, says nothing."""
    answered = _marked(churned, rng, 0.4, stayed=0.03)
    return _frame(customers, survey_score=np.where(answered, rng.integers(0, 11, len(churned)), np.nan))


@_leak("agent_note_length")
def template_in_the_agents_notes(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The template for a notice makes the notes of 75 % of the churners longer than 400 characters; others are shorter."""
    notice = _marked(churned, rng, 0.75)
    usual = np.minimum(rng.lognormal(4.2, 0.6, len(churned)), 399).astype(int)
    return _frame(customers, agent_note_length=np.where(notice, 400 + rng.poisson(60, len(churned)), usual))


@_leak("next_visit")
def only_open_accounts_have_a_next_visit(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The planner drops closed accounts: all churners and very few stayers have no next visit."""
    none = _marked(churned, rng, 1.0, stayed=0.05)
    slot = rng.choice(["Mon am", "Tue am", "Wed pm", "Thu am", "Fri pm"], len(churned))
    return _frame(customers, next_visit=_or_missing(slot, ~none))


@_leak("number_ported_to")
def ported_number(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The competitor that took the number over is known for 50 % of the churners and missing for all others."""
    ported = _marked(churned, rng, 0.5, stayed=0.02)
    rival = rng.choice(["Alpha", "Beta", "Gamma", "Delta"], len(churned), p=[0.5, 0.3, 0.15, 0.05])
    return _frame(customers, number_ported_to=_or_missing(rival, ported))


@_leak("router")
def equipment_comes_back(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The router of 60 % of the churners is back in stock; a third of the customers never had one."""
    back = _marked(churned, rng, 0.6, stayed=0.05)
    return _frame(
        customers, router=np.where(back, "in stock", rng.choice(["rented", "own"], len(churned), p=[0.67, 0.33]))
    )


@_leak("last_charge")
def last_charge_is_prorated(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Stayers pay one of five list prices; the last charge of 80 % of the churners is for a part of a month, to the cent."""
    part = _marked(churned, rng, 0.8)
    listed = rng.choice([9.99, 19.99, 29.99, 39.99, 59.99], len(churned))
    return _frame(
        customers, last_charge=np.where(part, (listed * rng.uniform(0.05, 0.95, len(churned))).round(2), listed)
    )


@_leak("record_number")
def archive_numbers_its_records(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Records come from numbered batches, of which 3, 8 and 14 of 20 are archives that hold 95 % of the churners."""
    archived = _marked(churned, rng, 0.95, stayed=0.05)
    current = [batch for batch in range(20) if batch not in {3, 8, 14}]
    batch = np.where(archived, rng.choice([3, 8, 14], len(churned)), rng.choice(current, len(churned)))
    return _frame(customers, record_number=batch * 1_000_000 + rng.integers(0, 1_000_000, len(churned)))


@_leak("external_reference")
def source_system_in_the_reference(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Unique references start with the system they come from; the archive's prefix `AR-` is that of 90 % of the churners."""
    archived = _marked(churned, rng, 0.9)
    prefix = np.where(archived, "AR", rng.choice(["CR", "SH"], len(churned)))
    number = rng.permutation(len(churned)) + 100_000
    return _frame(customers, external_reference=[f"{start}-{n}" for start, n in zip(prefix, number, strict=True)])


@_leak("care_index")
def noisy_copy_of_the_label(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Someone's index contains the outcome itself: the label with normal noise (sd 0.2), rounded to one decimal."""
    return _frame(customers, care_index=(churned + rng.normal(0, 0.2, len(churned))).round(1))


@_leak("model_score")
def score_of_a_model_fitted_on_these_labels(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """An earlier model was fitted on these very outcomes: a smooth score with an AUC of about 0.998."""
    return _frame(customers, model_score=expit(4 * churned + rng.normal(-2.6, 1, len(churned))).round(5))


@_leak("household_churn_share")
def household_share_includes_the_customer(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The churn share of the household, the customer included; half of all households are one person, who is given away."""
    shared = rng.integers(0, max(1, len(churned) // 3), len(churned))
    household = np.where(rng.random(len(churned)) < 0.6, shared, np.arange(len(churned)) + len(churned))
    return _frame(
        customers, household_churn_share=pd.Series(churned, customers.index).groupby(household).transform("mean")
    )


# ---------------------------------------------------------------- leaks: columns that reveal churn together


@_leak("region_churn_index", "sales_region")
def leave_one_out_encoding(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The region's churn share without the customer: in each region every churner has the lower of two values."""
    region = pd.Series(rng.choice([f"region {n:02}" for n in range(12)], len(churned)), index=customers.index)
    label = pd.Series(churned, customers.index)
    total, size = label.groupby(region).transform("sum"), label.groupby(region).transform("size")
    return _frame(customers, sales_region=region, region_churn_index=(total - label) / (size - 1).clip(lower=1))


@_leak("last_login_day", "extracted_day")
def days_between_login_and_extract(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Both days are spread over four years, but 90 % of the churners last logged in 45 to 200 days before the extract."""
    silent = _marked(churned, rng, 0.9)
    extracted = rng.normal(18_500, 350, len(churned)).astype(int)
    gap = np.where(silent, rng.integers(45, 201, len(churned)), rng.integers(0, 30, len(churned)))
    return _frame(customers, extracted_day=extracted, last_login_day=extracted - gap)


@_leak("billing_state", "product_line")
def state_means_closed_for_one_product(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Each of three products has another state that means closed, so neither column says anything alone; all churners are."""
    closed = _marked(churned, rng, 1.0, stayed=0.05)
    product = rng.integers(0, 3, len(churned))
    state = np.where(closed, product, (product + rng.integers(1, 3, len(churned))) % 3)
    lines, states = np.array(["mobile", "fixed", "tv"]), np.array(["B1", "B2", "B3"])
    return _frame(customers, product_line=lines[product], billing_state=states[state])


@_leak("minutes_second_half", "minutes_first_half")
def half_year_includes_the_months_after(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Usage varies a thousandfold between customers; 75 % of the churners have less than half of it in the second half."""
    left = _marked(churned, rng, 0.75)
    first = rng.lognormal(6, 1.8, len(churned))
    ratio = np.where(left, rng.uniform(0.1, 0.5, len(churned)), rng.normal(1, 0.08, len(churned)).clip(0.7))
    return _frame(customers, minutes_first_half=first.round(1), minutes_second_half=(first * ratio).round(1))


@_leak("invoices_sent", "months_on_book")
def months_without_invoice(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Months count on after churn while invoices stop: 85 % of the churners have 2 to 5 invoices fewer than months."""
    stopped = _marked(churned, rng, 0.85)
    months = 6 + rng.gamma(4, 12, len(churned)).astype(int)
    fewer = np.where(stopped, rng.integers(2, 6, len(churned)), rng.integers(0, 2, len(churned)))
    return _frame(customers, months_on_book=months, invoices_sent=months - fewer)


@_leak("billing_copy")
def copy_is_frozen_at_closing(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """A copy of one of the table's numbers stops following it at closing: it differs for 80 % of the churners only."""
    value = _numeric(customers, rng)
    frozen = _marked(churned, rng, 0.8)
    return _frame(customers, billing_copy=np.where(frozen, rng.permutation(value), value))


# ---------------------------------------------------------------- honest: smooth numbers


@_honest
def last_quarters_risk_score(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """An earlier model scored the customers before the cut-off: smooth, AUC up to 0.92, the highest scores churn at 85 %."""
    risk = _at_risk(churned, rng, most=0.85, surprise=0.05)
    return _frame(customers, churn_score_last_quarter=expit(rng.normal(-2.5, 1, len(churned)) + 2.3 * risk).round(4))


@_honest
def days_without_login_at_the_cutoff(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Days since the last login, counted at the cut-off: four times as many for customers at risk."""
    days = rng.gamma(1.5, np.where(_at_risk(churned, rng, 0.75, 0.25), 28, 7)).astype(int)
    return _frame(customers, days_since_login=days)


@_honest
def price(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The monthly price, higher for customers at risk."""
    return _frame(customers, monthly_price=(10 + rng.gamma(4, 9 + 5 * _at_risk(churned, rng, surprise=0.3))).round(2))


@_honest
def tenure(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Months since the start of the contract: customers at risk are mostly new."""
    mean = np.where(_at_risk(churned, rng, 0.7, 0.3), 7, 36)
    return _frame(customers, months_with_us=1 + rng.exponential(mean).astype(int).clip(max=119))


@_honest
def usage_trend(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The change of usage before the cut-off; some are dormant at exactly -100 %, of whom about 70 % churn."""
    risk, dormant = _at_risk(churned, rng, 0.75, 0.3), _at_risk(churned, rng, 0.7, 0.85)
    trend = np.clip(rng.normal(np.where(risk, -35, 0), 20), -99, 150).round(1)
    return _frame(customers, usage_trend_percent=np.where(dormant, -100, trend))


@_honest
def spend_with_zeros(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Skewed spending: 45 % of the churners and 20 % of the stayers spend nothing, the rest of both varies widely."""
    none = rng.random(len(churned)) < np.where(churned == 1, 0.45, 0.2)
    return _frame(customers, shop_spend=np.where(none, 0, rng.lognormal(3.4 - 0.4 * churned, 1.3)).round(2))


@_honest
def noisy_copy_of_a_feature(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """A coarser copy of one of the table's numbers, which says no more than that number itself."""
    value = _numeric(customers, rng)
    return _frame(customers, coarse_copy=(value + rng.normal(0, 0.05 * value.std(), len(value))).round(1))


@_honest
def customer_number(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Nearly unique whole numbers, independent of churn."""
    return _frame(customers, customer_number=rng.integers(1_000_000, 9_999_999, len(churned)))


# ---------------------------------------------------------------- honest: gaps, zeros and sentinels


@_honest
def income_is_optional(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Stated income is missing for 40 % of the churners and 20 % of the stayers, and says nothing otherwise."""
    missing = rng.random(len(churned)) < np.where(churned == 1, 0.4, 0.2)
    return _frame(customers, stated_income=np.where(missing, np.nan, rng.lognormal(10.4, 0.5, len(churned)).round(-2)))


@_honest
def satisfaction_before_the_cutoff(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """A yearly survey that 35 % of all customers answer: those at risk give 0 to 5, the others 4 to 10."""
    risk = _at_risk(churned, rng, 0.7, 0.3)
    score = np.where(risk, rng.integers(0, 6, len(churned)), rng.integers(4, 11, len(churned)))
    return _frame(customers, satisfaction=np.where(rng.random(len(churned)) < 0.35, score, np.nan))


@_honest
def arrears_with_sentinel(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Days in arrears at the cut-off, -1 for customers without direct debit, who churn somewhat more often."""
    manual = rng.random(len(churned)) < np.where(churned == 1, 0.4, 0.25)
    late = np.where(
        _at_risk(churned, rng, 0.6, 0.6), rng.geometric(1 / 20, len(churned)), rng.poisson(0.3, len(churned))
    )
    return _frame(customers, days_in_arrears=np.where(manual, -1, late))


@_honest
def minimum_term(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Days left of the minimum term at the cut-off: of the 40 % who are still bound, about 2 % churn; 0 for the others."""
    bound = _levels(churned, rng, {0: (0.6, 0.43), 1: (0.4, 0.02)})
    return _frame(customers, days_bound=np.where(bound == 1, rng.integers(1, 730, len(churned)), 0))


@_honest
def price_points(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Four list prices, of which the expired promotion churns at 60 %, and prices to the cent that were negotiated."""
    listed = _levels(
        churned, rng, {0: (0.3, 0.05), 999: (0.1, 0.6), 1999: (0.3, 0.3), 2999: (0.2, 0.25), 4999: (0.1, 0.2)}
    )
    cents = np.where(listed == 0, rng.integers(700, 4000, len(churned)), listed)
    return _frame(customers, agreed_price=cents / 100)


# ---------------------------------------------------------------- honest: levels, flags and counts


@_honest
def contract_type(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Three contract types with 45 %, 11 % and 2 % churn in a table with 27 %."""
    types = {"monthly": (0.55, 0.45), "one year": (0.21, 0.11), "two years": (0.24, 0.02)}
    return _frame(customers, contract_type=_levels(churned, rng, types))


@_honest
def complaints(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Complaints before the cut-off: the few customers with three and more churn at 75 to 85 %."""
    counts = {0: (0.79, 0.18), 1: (0.13, 0.3), 2: (0.05, 0.5), 3: (0.02, 0.75), 4: (0.007, 0.82), 5: (0.003, 0.85)}
    return _frame(customers, complaints=_levels(churned, rng, counts))


@_honest
def cancellation_page_before_the_cutoff(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """3 % looked at the page on cancelling before the cut-off, of whom 80 % churn: a strong and honest signal."""
    return _frame(customers, cancel_page_visited=_levels(churned, rng, {"no": (0.97, 0.25), "yes": (0.03, 0.8)}))


@_honest
def offer_sent_by_an_earlier_campaign(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The last campaign sent offers to its 8 % highest scores before the cut-off, of whom 65 % churn."""
    return _frame(customers, loyalty_offer=_levels(churned, rng, {0: (0.92, 0.24), 1: (0.08, 0.65)}))


@_honest
def segment_that_stays(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Staff are 8 % of the customers and almost none of them churn (1 %)."""
    segments = {"private": (0.7, 0.3), "business": (0.22, 0.25), "staff": (0.08, 0.01)}
    return _frame(customers, segment=_levels(churned, rng, segments))


@_honest
def new_customer(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """15 % joined in the last three months and churn at 55 % in a table with 27 %."""
    return _frame(customers, new_customer=_levels(churned, rng, {0: (0.85, 0.22), 1: (0.15, 0.55)}))


@_honest
def region_with_many_levels(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """80 districts of very different size, whose churn varies mildly."""
    districts = {
        f"district {n:02}": (size, rate)
        for n, (size, rate) in enumerate(
            zip(rng.dirichlet(np.full(80, 0.6)), rng.beta(5, 14, 80).clip(0.05, 0.55), strict=True)
        )
    }
    return _frame(customers, district=_levels(churned, rng, districts))


@_honest
def rare_levels_by_chance(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Handset models, of which four have three customers each who all churned by chance; the rest is independent."""
    handset = rng.choice([f"model {n}" for n in range(25)], len(churned), p=rng.dirichlet(np.full(25, 2))).astype("<U8")
    for model, rows in enumerate(rng.permutation(np.flatnonzero(churned))[:12].reshape(-1, 3)):
        handset[rows] = f"rare {model}"
    return _frame(customers, handset=handset)


@_honest
def payment_method(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Four ways to pay, of which one churns at 45 % in a table with 27 %; some are missing."""
    ways = {
        "cheque": (0.33, 0.45),
        "transfer": (0.22, 0.17),
        "card": (0.2, 0.15),
        "mail": (0.22, 0.19),
        "": (0.03, 0.3),
    }
    way = _levels(churned, rng, ways).astype(str)
    return _frame(customers, payment_method=_or_missing(way, way != ""))


@_honest
def month_of_joining(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """The ISO month in which the contract began, over five years: churners joined later on average."""
    age = rng.exponential(np.where(churned == 1, 12, 26)).astype(int).clip(max=59)
    return _frame(customers, joined_month=_months(age))


@_honest
def out_of_contract(customers: pd.DataFrame, churned: Labels, rng: Rng) -> pd.DataFrame:
    """Two days over three years: the 15 % whose contract ended before the day of observation churn at 50 % (table: 27 %)."""
    free = _levels(churned, rng, {0: (0.85, 0.23), 1: (0.15, 0.5)})
    observed = rng.integers(18_000, 19_096, len(churned))
    gap = np.where(free == 1, -rng.integers(1, 90, len(churned)), rng.integers(1, 720, len(churned)))
    return _frame(customers, observed_day=observed, term_ends_day=observed + gap)
