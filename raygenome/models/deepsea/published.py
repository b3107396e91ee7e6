"""The published weights of DeepSEA, as Kipoi stores them.

Source: github.com/kipoi/models, DeepSEA/model_architecture.py.
"""

from raygenome.models.published import PublishedFile

#: The files by the names that `models pull` takes. Both hold the same weights.
FILES = {
    "deepsea": PublishedFile(
        architecture="deepsea",
        url="https://zenodo.org/record/1466993/files/deepsea_variant_effects.pth?download=1",
        md5="35956ab9c28960b5a3693f470fe980c1",
        size=211_000_000,
        licence="CC-BY 3.0",
    ),
    "deepsea-predict": PublishedFile(
        architecture="deepsea",
        url="https://zenodo.org/record/1466993/files/deepsea_predict.pth?download=1",
        md5="89e640bf6bdbe1ff165f484d9796efc7",
        size=211_000_000,
        licence="CC-BY 3.0",
    ),
}

#: Kipoi's number of each of our layers. Its fully connected layers are `N.1`: the second half of a
#: pair whose first half flattens.
LAYERS = {
    "conv1": "0",
    "conv2": "4",
    "conv3": "8",
    "full1": "12.1",
    "output": "14.1",
}
