"""Which values an object's change concerns, and which of them change under their key."""

from __future__ import annotations

import pytest
from moorage_operator.plan.value_key import changes_under_its_key, of_object


@pytest.mark.parametrize(
    ("key", "secret", "config_map", "changing"),
    [
        ("secret/shop/keys/token/0123456789abcdef", True, False, False),
        ("secret/shop/keys/token", True, False, True),
        ("config/shop/keys/app.conf/0123456789abcdef", False, True, False),
        ("config/shop/keys/app.tar", False, True, True),
        ("pull/shop/keys/registry.example:5000/team/app", True, False, True),
        ("ca/shop/keys/ca.crt", False, True, True),
        ("secret/other/keys/token", False, False, True),
        ("pull/shop/others/registry.example/app", False, False, True),
    ],
)
def test_a_key_tells_whose_it_is_and_whether_its_content_may_change(key: str, secret: bool, config_map: bool, changing: bool) -> None:
    assert of_object("Secret", ("shop", "keys"), key) == secret
    assert of_object("ConfigMap", ("shop", "keys"), key) == config_map
    assert changes_under_its_key(key) == changing
