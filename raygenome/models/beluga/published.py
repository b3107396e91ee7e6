"""The published weights of Beluga, as ExPecto and Kipoi store them.

Sources: github.com/FunctionLab/ExPecto, chromatin.py and resources/deepsea_beluga_2002_features.tsv
(the targets), and github.com/kipoi/models, DeepSEA/beluga.
"""

from raygenome.models.published import PublishedFile

#: The files by the names that `models pull` takes.
FILES = {
    "beluga": PublishedFile(
        architecture="beluga",
        url="https://zenodo.org/record/3402406/files/deepsea.beluga.pth?download=1",
        md5="62360f2db4ac96554d28d058b50ab654",
        size=598_000_000,
        licence="non-commercial",
    ),
}

#: The published net's number of each of our layers. It is two lists of layers, 0 the convolutions
#: and 1 the rest, whose fully connected layers are `N.1`: the second half of a pair.
LAYERS = {
    "conv1a": "0.0",
    "conv1b": "0.2",
    "conv2a": "0.6",
    "conv2b": "0.8",
    "conv3a": "0.12",
    "conv3b": "0.14",
    "full1": "1.2.1",
    "output": "1.4.1",
}
