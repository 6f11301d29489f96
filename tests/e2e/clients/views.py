"""What a user sees in an answer: names instead of ciphertexts."""

from __future__ import annotations

from typing import Any

from tests.e2e.clients import sealed


def names(view: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Folders and files of a view; the same name twice would be one too many."""
    lists = view["files_and_folders"]
    folders, files = [_names(lists.get(kind, [])) for kind in ("folders", "files")]
    assert len(set(folders)) == len(folders), folders
    assert len(set(files)) == len(files), files
    return set(folders), set(files)


def path_of(view: dict[str, Any]) -> list[str]:
    """Root-most first, the folder itself last, as `path_index` counts it."""
    crumbs = view["full_path"]
    assert [crumb["path_index"] for crumb in crumbs] == list(reversed(range(len(crumbs))))
    return _names(crumbs)


def find(view: dict[str, Any], name: str) -> dict[str, Any]:
    lists = view["files_and_folders"]
    everything: list[dict[str, Any]] = [*lists.get("folders", []), *lists.get("files", [])]
    (found,) = [item for item in everything if sealed.name_in(item["encrypted_metadata"]) == name]
    return found


def tree_names(folders: list[dict[str, Any]], parent_id: str) -> set[str]:
    """The second generation drops what does not say that this is its parent."""
    expected = None if parent_id == "root" else parent_id
    return set(_names([folder for folder in folders if folder["parent_folder_id"] == expected]))


def members(people: list[dict[str, Any]], key: str = "permission") -> dict[str, str]:
    return {person["username"]: person[key] for person in people}


def _names(items: list[dict[str, Any]]) -> list[str]:
    return [sealed.name_in(item["encrypted_metadata"]) for item in items]
