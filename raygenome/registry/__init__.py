"""The registry: model directories, where they are found and how weights come into them."""
