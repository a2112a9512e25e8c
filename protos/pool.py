"""A descriptor pool of our own, so that `tritonclient` can be imported into the same process.

Both register messages of the package `inference`; in the default pool the second one fails with
"duplicate symbol" unless file names and bytes are identical to that client's release.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
