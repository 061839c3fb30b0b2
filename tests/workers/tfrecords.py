"""Write a TFRecord file by TensorFlow: ``python -m tests.workers.tfrecords FILE``."""

import sys

import tensorflow as tf


def main(path: str) -> None:
    feature = tf.train.Feature
    with tf.io.TFRecordWriter(path) as file:
        for i in range(3):
            values = {
                "text": feature(bytes_list=tf.train.BytesList(value=["zażółć".encode()])),
                "n": feature(int64_list=tf.train.Int64List(value=[i - 1])),
                "many": feature(float_list=tf.train.FloatList(value=[0.5, 2.0])),
            }
            file.write(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
