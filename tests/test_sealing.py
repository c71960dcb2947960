"""Sealed bytes open for their own id and field with their own key, and not otherwise."""

from __future__ import annotations

import base64
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from broker.errors import BrokerError
from broker.sealing import NONCE_BYTES, KeyMissing, SealBroken, Sealer, Token
from config.sections import KeySettings

MARKED = b"0101364001"


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def sealer(**changes: Any) -> Sealer:
    keys = {
        "sealing": {"s1": key(1), "s2": key(2)},
        "seal_with": "s1",
        "tokens": {"t1": key(3), "t2": key(4)},
        "token_order": ["t1", "t2"],
    }
    return Sealer(KeySettings.model_validate(keys | changes))


texts = some.text(some.characters(exclude_categories=["Cs"]), max_size=40)


@given(plain=some.binary(max_size=2000), of=texts, field=texts)
def test_sealed_bytes_open_for_their_own_id_and_field(plain: bytes, of: str, field: str) -> None:
    assert sealer().open(sealer().seal(plain, of=of, field=field), of=of, field=field) == plain


@given(of=texts, field=texts, other=texts, another=texts)
def test_sealed_bytes_do_not_open_for_another_id_or_field(
    of: str, field: str, other: str, another: str
) -> None:
    assume((of, field) != (other, another))
    sealed = sealer().seal(MARKED, of=of, field=field)
    with pytest.raises(SealBroken):
        sealer().open(sealed, of=other, field=another)


def test_id_and_field_cannot_be_confused() -> None:
    sealed = sealer().seal(MARKED, of="ab", field="c")
    with pytest.raises(SealBroken):
        sealer().open(sealed, of="a", field="bc")


@given(at=some.integers(0, 10_000), bit=some.integers(0, 7))
def test_a_flipped_bit_does_not_open(at: int, bit: int) -> None:
    sealed = bytearray(sealer().seal(MARKED, of="a", field="cpr"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(SealBroken):
        sealer().open(bytes(sealed), of="a", field="cpr")


@given(junk=some.binary(max_size=80))
def test_other_bytes_do_not_open(junk: bytes) -> None:
    with pytest.raises(SealBroken):
        sealer().open(junk, of="a", field="cpr")


@given(length=some.integers(0, 200))
def test_truncated_bytes_do_not_open(length: int) -> None:
    sealed = sealer().seal(MARKED, of="a", field="cpr")
    with pytest.raises(SealBroken):
        sealer().open(sealed[: min(length, len(sealed) - 1)], of="a", field="cpr")


def test_the_key_id_is_in_the_clear_and_nothing_else() -> None:
    sealed = sealer().seal(MARKED, of="a", field="cpr")
    assert sealed.startswith(b"\x01\x02s1")
    assert MARKED not in sealed
    assert len(sealed) == 4 + NONCE_BYTES + len(MARKED) + 16


def test_no_two_seals_are_the_same() -> None:
    assert len({sealer().seal(MARKED, of="a", field="cpr") for _ in range(200)}) == 200


def test_after_a_rotation_the_old_key_still_opens_and_the_new_one_seals() -> None:
    # Given bytes sealed with the old key
    old = sealer().seal(MARKED, of="a", field="cpr")
    # When the other key seals from now on
    rotated = sealer(seal_with="s2")
    # Then both open, and the new one names the new key
    assert rotated.open(old, of="a", field="cpr") == MARKED
    new = rotated.seal(MARKED, of="a", field="cpr")
    assert new[2:4] == b"s2"
    assert sealer().open(new, of="a", field="cpr") == MARKED


def test_a_key_that_was_dropped_too_early_is_named() -> None:
    sealed = sealer().seal(MARKED, of="a", field="cpr")
    with pytest.raises(KeyMissing, match="no key 's1' is configured") as caught:
        sealer(sealing={"s2": key(2)}, seal_with="s2").open(sealed, of="a", field="cpr")
    assert caught.value.key_id == "s1"


def test_another_key_under_the_same_id_does_not_open() -> None:
    sealed = sealer().seal(MARKED, of="a", field="cpr")
    with pytest.raises(SealBroken, match="damaged"):
        sealer(sealing={"s1": key(9)}).open(sealed, of="a", field="cpr")


@given(value=some.binary(max_size=100), other=some.binary(max_size=100))
def test_equal_values_have_equal_tokens_and_others_do_not(value: bytes, other: bytes) -> None:
    assume(value != other)
    one = sealer().token(value, purpose="citizen")
    assert one.same(sealer().token(value, purpose="citizen"))
    assert not one.same(sealer().token(other, purpose="citizen"))


def test_tokens_of_different_purposes_and_keys_differ() -> None:
    tokens = [
        sealer().token(MARKED, purpose=purpose, key_id=key_id)
        for purpose in ("citizen", "business")
        for key_id in ("t1", "t2")
    ]
    assert len({token.digest for token in tokens}) == 4
    # Purpose and value cannot be confused.
    assert sealer().token(b"bc", purpose="a").digest != sealer().token(b"c", purpose="ab").digest


def test_a_token_is_not_the_same_under_another_key_id() -> None:
    token = sealer().token(MARKED, purpose="citizen")
    assert not token.same(replace(token, key_id="t1"))


def test_the_newest_key_makes_tokens_and_a_search_takes_all() -> None:
    this = sealer()
    assert (this.oldest_token_key, this.newest_token_key) == ("t1", "t2")
    assert this.token(MARKED, purpose="citizen").key_id == "t2"
    assert this.token(MARKED, purpose="citizen", key_id=this.oldest_token_key).key_id == "t1"
    assert [token.key_id for token in this.all_tokens(MARKED, purpose="citizen")] == ["t2", "t1"]


def test_a_missing_token_key_is_named() -> None:
    with pytest.raises(KeyMissing) as caught:
        sealer().token(MARKED, purpose="citizen", key_id="t0")
    assert caught.value.key_id == "t0"


def test_neither_keys_nor_tokens_are_printed() -> None:
    this = sealer()
    token = this.token(MARKED, purpose="citizen")
    assert repr(token) == str(token) == "Token('t2', **********)"
    assert repr(this) == str(this) == "Sealer(sealing=['s1', 's2'], tokens=['t1', 't2'])"


def test_a_sealer_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(sealer())


def test_the_error_is_a_broker_error_without_the_content() -> None:
    assert issubclass(SealBroken, BrokerError)
    with pytest.raises(SealBroken) as caught:
        sealer().open(MARKED, of="a", field="cpr")
    assert str(caught.value) == "cpr: not sealed by the broker"


def test_a_token_holds_its_key_id_and_a_digest_of_32_bytes() -> None:
    token = sealer().token(b"", purpose="")
    assert isinstance(token, Token)
    assert len(token.digest) == 32
