"""The part of the table of URLs that is the drive: both generations of clients, one implementation.

The first generation sends POST with a verb in the path, the second the methods of REST. A few forms that only lived for
some weeks between them are here because test suites and scripts were written for them.
"""

from __future__ import annotations

from starlette.routing import Route

from gauzian.assembly.parts import Parts
from gauzian.drive.contents import SendContents
from gauzian.drive.sharing import Sharing
from gauzian.drive.trash import Trash
from gauzian.drive.tree import Tree
from gauzian.drive.views import Numbers, SendFiles, SendFolders, SendFolderView, SendView, SendWholeView, Turns
from gauzian.settings import Settings


def drive_paths(parts: Parts, settings: Settings) -> list[Route]:
    return [*_views(parts, settings), *_tree(parts), *_trash(parts), *_sharing(parts)]


def _views(parts: Parts, settings: Settings) -> list[Route]:
    turns = Turns()

    def view(kind: type[SendView]) -> SendView:
        return kind(
            identity=parts.identity,
            database=parts.database,
            turns=turns,
            metrics=parts.metrics,
            quota_bytes=settings.quota_bytes,
            stall_seconds=settings.download_stall_seconds,
        )

    folders = view(SendFolders)
    contents = SendContents(
        identity=parts.identity,
        database=parts.database,
        turns=turns,
        metrics=parts.metrics,
        stall_seconds=settings.download_stall_seconds,
    )
    numbers = Numbers(identity=parts.identity, database=parts.database, quota_bytes=settings.quota_bytes)
    return [
        Route("/drive/get_file_folder/{parent_id}", view(SendFolderView), methods=["GET"]),
        Route("/drive/get_all_drive_info/{parent_id}", view(SendWholeView), methods=["GET"]),
        # Without an id: the root.
        Route("/drive/get_all_drive_info", view(SendWholeView), methods=["GET"]),
        Route("/drive/get_drive_info", numbers.drive_info, methods=["GET"]),
        Route("/drive/get_folder/{folder_id}", folders, methods=["GET"]),
        Route("/drive/folders/{folder_id}", folders, methods=["GET"]),
        Route("/drive/folder_contents/{folder_id}", contents, methods=["GET"]),
        Route("/drive/files", view(SendFiles), methods=["GET"]),
    ]


def _tree(parts: Parts) -> list[Route]:
    tree = Tree(identity=parts.identity, database=parts.database)
    return [
        Route("/drive/create_folder", tree.create_folder, methods=["POST"]),
        Route("/drive/folders", tree.create_folder, methods=["POST"]),
        Route("/drive/rename_file", tree.rename_file, methods=["POST"]),
        Route("/drive/files/{file_id}", tree.rename_file, methods=["PATCH"]),
        Route("/drive/rename_folder", tree.rename_folder, methods=["POST"]),
        Route("/drive/folders/{folder_id}", tree.rename_folder, methods=["PATCH"]),
        Route("/drive/move_file", tree.move_file, methods=["POST"]),
        Route("/drive/files/{file_id}/move", tree.move_file_to, methods=["PATCH"]),
        Route("/drive/move_folder", tree.move_folder, methods=["POST"]),
        Route("/drive/folders/{folder_id}/move", tree.move_folder_to, methods=["PATCH"]),
    ]


def _trash(parts: Parts) -> list[Route]:
    trash = Trash(identity=parts.identity, database=parts.database, remove_objects=parts.removal.remove_objects)
    return [
        Route("/drive/delete_file", trash.delete_file, methods=["POST"]),
        Route("/drive/files/{file_id}", trash.remove_file, methods=["DELETE"]),
        Route("/drive/delete_folder", trash.delete_folder, methods=["POST"]),
        Route("/drive/folders/{folder_id}", trash.remove_folder, methods=["DELETE"]),
        Route("/drive/restore_file", trash.restore_file, methods=["POST"]),
        Route("/drive/restore_folder", trash.restore_folder, methods=["POST"]),
        Route("/drive/empty_trash", trash.empty, methods=["POST"]),
    ]


def _sharing(parts: Parts) -> list[Route]:
    sharing = Sharing(identity=parts.identity, database=parts.database)
    return [
        Route("/drive/share_file", sharing.share_file, methods=["POST"]),
        Route("/drive/files/{file_id}/share", sharing.share_file, methods=["POST"]),
        Route("/drive/share_folder", sharing.share_folder, methods=["POST"]),
        Route("/drive/folders/{folder_id}/share", sharing.share_folder, methods=["POST"]),
        Route("/drive/share_folder_batch", sharing.share_folder_batch, methods=["POST"]),
        Route("/drive/files/{file_id}/accept", sharing.accept_file, methods=["POST"]),
        Route("/drive/folders/{folder_id}/accept", sharing.accept_folder, methods=["POST"]),
        Route("/drive/files/{file_id}/reject", sharing.reject_file, methods=["POST"]),
        Route("/drive/folders/{folder_id}/reject", sharing.reject_folder, methods=["POST"]),
        Route("/drive/propagate_file_access", sharing.propagate_file, methods=["POST"]),
        Route("/drive/propagate_folder_access", sharing.propagate_folder, methods=["POST"]),
        Route("/drive/revoke-access", sharing.revoke, methods=["POST"]),
        Route("/drive/files/{file_id}/share/{user_id}", sharing.unshare_file, methods=["DELETE"]),
        Route("/drive/folders/{folder_id}/share/{user_id}", sharing.unshare_folder, methods=["DELETE"]),
        Route("/drive/folder/{folder_id}/shared_users", sharing.shared_users, methods=["GET"]),
        Route("/drive/folder/{folder_id}/InfoItem", sharing.folder_members, methods=["GET"]),
        Route("/drive/file/{file_id}/InfoItem", sharing.file_members, methods=["GET"]),
    ]
