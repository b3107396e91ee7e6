"""The published weights of Basset, as Kipoi stores them.

Source: github.com/kipoi/models, Basset/pretrained_model_reloaded_th.py.
"""

from raygenome.models.published import PublishedFile

#: The files by the names that `models pull` takes.
FILES = {
    "basset": PublishedFile(
        architecture="basset",
        url="https://zenodo.org/record/1466068/files/pretrained_model_reloaded_th.pth?download=1",
        md5="4878981d84499eb575abd0f3b45570d3",
        size=17_000_000,
        licence="MIT",
    ),
}

#: Kipoi's number of each of our layers. Its fully connected layers are `N.1`: the second half of a
#: pair whose first half flattens.
LAYERS = {
    "conv1": "0",
    "conv1_norm": "1",
    "conv2": "4",
    "conv2_norm": "5",
    "conv3": "8",
    "conv3_norm": "9",
    "full1": "13.1",
    "full1_norm": "14",
    "full2": "17.1",
    "full2_norm": "18",
    "output": "21.1",
}
