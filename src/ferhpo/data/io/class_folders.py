"""The folders of the classes in a folder or zip: [top/]train/<class>/file, or [top/]<class>/file.

Note: the names of folders decide the split; the names of files do not matter here. Names of classes are compared in
Unicode's form NFC, because some systems write an accent as a character of its own.
"""

from dataclasses import dataclass, field

from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.data.io.faults import Faults, raise_faults
from ferhpo.data.io.tree import Tree
from ferhpo.data.labels.class_names import name_fault, normal
from ferhpo.errors import DataError

SPLIT_FOLDERS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}
MAX_CLASSES = 1000


@dataclass
class ClassFolders:
    """The files of all classes, sorted by split, class and name. The split is None if there are no split folders.

    classes: every (split, class) that has a folder, including empty folders
    split_folders: the folder of each split, as it is named in the source
    """

    names: list[str] = field(default_factory=list)
    class_of: list[str] = field(default_factory=list)
    split_of: list[int | None] = field(default_factory=list)
    classes: list[tuple[int | None, str]] = field(default_factory=list)
    split_folders: dict[int | None, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def add_empty(self, faults: Faults) -> None:
        """Add a fault for the class folders without a file."""
        for folder in self.empty:
            faults.add("empty", f"{folder} has no images; add some, or remove the class from every split", folder)


def find_class_folders(where: str, tree: Tree) -> ClassFolders:
    """Find the folders of classes.

    Raises DataError if there are none or too many, if there are two data sets, or if a folder's name is not a class.
    """
    by_parent: dict[str, list[str]] = {}
    for folder in tree.folders:
        by_parent.setdefault(folder.rpartition("/")[0], []).append(folder)
    files: dict[str, list[str]] = {}
    for name in tree.names:
        files.setdefault(name.rpartition("/")[0], []).append(name)

    split_folders = [
        folder for folder in tree.folders if _last(folder).lower() in SPLIT_FOLDERS and folder in by_parent
    ]
    tops = sorted({folder.rpartition("/")[0] for folder in split_folders})
    if len(tops) > 1:
        both = " and ".join(top or "the top folder" for top in tops[:2])
        raise DataError(where, [f"it has two data sets, in {both}; set data.path to one of them"])
    found = ClassFolders()
    if split_folders:
        sources = sorted((SPLIT_FOLDERS[_last(folder).lower()], folder) for folder in split_folders)
        for code, folder in sources:
            if code in found.split_folders:
                raise DataError(where, [f"{found.split_folders[code]} and {folder} mean the same split; keep one"])
            found.split_folders[code] = folder
    else:
        top = ""
        while len(by_parent.get(top, [])) == 1 and by_parent[top][0] in by_parent and not files.get(top):
            top = by_parent[top][0]  # one folder around everything else, as zips often have
        found.split_folders[None] = top
    faults = Faults("folder")
    for split, parent in found.split_folders.items():
        if (num := len(by_parent.get(parent, []))) > MAX_CLASSES:
            limit = f"has {num:,} folders; it must have at most {MAX_CLASSES:,} classes"
            raise DataError(
                where, [f"{parent or 'the top folder'} {limit}; set data.path to the folder of the classes"]
            )
        for folder in by_parent.get(parent, []):
            class_name = normal(_last(folder))
            if rule := name_fault(class_name):
                faults.add("name", f"the name of the folder {folder!r} {rule}; rename the folder", repr(folder))
            if (split, class_name) not in found.classes:
                found.classes.append((split, class_name))
            if not files.get(folder):
                found.empty.append(folder)
            for name in files.get(folder, []):
                found.names.append(name)
                found.class_of.append(class_name)
                found.split_of.append(split)
    raise_faults(where, faults)
    if not found.classes:
        raise DataError(
            where, ["it has no folders of classes; put the images of each class into a folder named after it"]
        )
    return found


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]
