"""U-Net segmentation: a picture -> the class of each of its pixels."""
