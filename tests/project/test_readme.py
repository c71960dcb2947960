"""README's figures are those of the documents, and those are the tools'."""

from __future__ import annotations

import pytest

from scripts import readme


def test_the_figures_in_readme_are_those_of_the_documents() -> None:
    text = readme.README.read_text()
    assert readme.renewed(text) == text


def test_a_readme_without_a_place_for_figures_is_told_of() -> None:
    with pytest.raises(ValueError, match="no place"):
        readme.renewed("nothing here")
